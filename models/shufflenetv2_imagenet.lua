--- ShuffleNet-v2 for images of 224x224 (Ma, Zhang, Zheng, Sun, "ShuffleNet V2: practical guidelines
-- for efficient CNN architecture design", ECCV 2018). Parameters have the names of torchvision's
-- shufflenet_v2_x0_5, x1_0, x1_5 and x2_0.
local mptl = require "mptl"
local nn = mptl.nn

-- width multiplier -> output channels of the sections and of conv5; other multipliers scale the
-- sections of width 1
local widths = {
  [0.5] = { 48, 96, 192, 1024 },
  [1] = { 116, 232, 464, 1024 },
  [1.5] = { 176, 352, 704, 1024 },
  [2] = { 244, 488, 976, 2048 },
}

local stem, units = 24, { 4, 8, 4 } -- units of each section; its first unit halves the image

local ShuffleNet = nn.Module("ShuffleNetV2")

function ShuffleNet:init(cfg)
  local out, channels = nn.widths(widths, cfg.width), stem
  self.conv1 = nn.Sequential { nn.conv_bn { cfg.input[1], channels, kernel = 3, stride = 2, relu = true } }
  self.maxpool = nn.MaxPool2d { kernel = 3, stride = 2, padding = 1 }
  for i, n in ipairs(units) do
    local section = nn.Sequential {}
    for unit = 1, n do
      section:append(nn.ShuffleUnit { channels, out[i], stride = unit == 1 and 2 or 1 })
      channels = out[i]
    end
    self["stage" .. i + 1] = section -- torchvision's name
  end
  self.conv5 = nn.Sequential { nn.conv_bn { channels, out[4], relu = true } }
  self.fc = nn.Linear { out[4], cfg.classes }
end

function ShuffleNet:forward(x)
  x = self.maxpool(self.conv1(x))
  for i = 1, #units do x = self["stage" .. i + 1](x) end
  return self.fc(nn.mean(self.conv5(x)))
end

return {
  model = function(cfg) return ShuffleNet(cfg) end,
  dataset = "imagenet",
  batch = 1024,
  epochs = 90,
  optimizer = mptl.optim.sgd { lr = 0.4, momentum = 0.9, weight_decay = 1e-4 },
  schedule = mptl.schedule.cosine {},
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 16, growth_interval = "0.5 epoch" },
  precision = mptl.precision.demotion { formats = "hfp8", ratio = 0.5, threshold = 0.01 },
}
