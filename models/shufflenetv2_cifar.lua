--- ShuffleNet-v2 for 32x32 images (Ma, Zhang, Zheng, Sun, "ShuffleNet V2: practical guidelines for
-- efficient CNN architecture design", ECCV 2018), in the form commonly trained on CIFAR: a stem of
-- stride 1, no max-pooling. Parameters have the names of the PyTorch model of the same structure.
local mptl = require "mptl"
local nn = mptl.nn

-- width multiplier -> output channels of the sections and of the last convolution; other
-- multipliers scale the sections of width 1
local widths = {
  [0.1] = { 12, 24, 48, 1024 },
  [0.25] = { 28, 56, 112, 1024 },
  [0.5] = { 56, 112, 224, 1024 },
  [1] = { 116, 232, 464, 1024 },
}

local stem, units = 24, { 4, 8, 4 } -- units of each section; its first unit halves the image

local ShuffleNet = nn.Module("ShuffleNetV2")

function ShuffleNet:init(cfg)
  local out, channels = nn.widths(widths, cfg.width), stem
  self.conv1, self.bn1 = nn.conv_bn { cfg.input[1], channels, kernel = 3 }
  for i, n in ipairs(units) do
    local layer = nn.Sequential {}
    for unit = 1, n do
      layer:append(nn.ShuffleUnit { channels, out[i], stride = unit == 1 and 2 or 1, flat = true })
      channels = out[i]
    end
    self["layer" .. i] = layer
  end
  self.conv2, self.bn2 = nn.conv_bn { channels, out[4] }
  self.linear = nn.Linear { out[4], cfg.classes }
end

function ShuffleNet:forward(x)
  x = nn.relu(self.bn1(self.conv1(x)))
  for i = 1, #units do x = self["layer" .. i](x) end
  x = nn.relu(self.bn2(self.conv2(x)))
  return self.linear(nn.flatten(nn.avg_pool2d(x, 4)))
end

return {
  model = function(cfg) return ShuffleNet(cfg) end,
  dataset = "cifar10",
  batch = 128,
  epochs = 200,
  optimizer = mptl.optim.sgd { lr = 0.1, momentum = 0.9, weight_decay = 5e-4 },
  schedule = mptl.schedule.cosine {},
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 16, growth_interval = "1 epoch" },
  precision = mptl.precision.demotion { formats = "hfp8", ratio = 0.5, threshold = 0.01 },
}
