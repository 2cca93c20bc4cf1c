--- ShuffleNet-v2 for 32x32 images (Ma, Zhang, Zheng, Sun, "ShuffleNet V2: practical guidelines for efficient CNN architecture
-- design", ECCV 2018), in the form commonly trained on CIFAR: a stem of stride 1, no max-pooling. Parameters are named as in the
-- PyTorch model of the same layout.
local mptl = require "mptl"
local nn = mptl.nn

local stem, blocks = 24, { 3, 7, 3 } -- basic blocks of each stage, after one that halves the image

-- width multiplier -> output channels of the stages and of the last convolution
local listed = {
  [0.1] = { 12, 24, 48, 1024 },
  [0.25] = { 28, 56, 112, 1024 },
  [0.5] = { 56, 112, 224, 1024 },
  [1] = { 116, 232, 464, 1024 },
}

-- Other multipliers scale the stages of 1.
local function widths(multiplier)
  if listed[multiplier] then return listed[multiplier] end
  local result = { [4] = listed[1][4] }
  for i = 1, 3 do result[i] = nn.scaled(listed[1][i], multiplier) end
  return result
end

-- Half of the channels passes by.
local BasicBlock = nn.Module("BasicBlock")

function BasicBlock:init(channels)
  local half = channels // 2
  self.half = half
  self.conv1, self.bn1 = nn.conv_bn { half, half }
  self.conv2, self.bn2 = nn.conv_bn { half, half, kernel = 3, groups = half }
  self.conv3, self.bn3 = nn.conv_bn { half, half }
end

function BasicBlock:forward(x)
  local past, y = nn.split(x, self.half)
  y = nn.relu(self.bn1(self.conv1(y)))
  y = self.bn2(self.conv2(y))
  y = nn.relu(self.bn3(self.conv3(y)))
  return nn.concat({ past, y }, { shuffle = 2 })
end

local DownBlock = nn.Module("DownBlock")

function DownBlock:init(inp, out)
  local half = out // 2
  self.conv1, self.bn1 = nn.conv_bn { inp, inp, kernel = 3, stride = 2, groups = inp }
  self.conv2, self.bn2 = nn.conv_bn { inp, half }
  self.conv3, self.bn3 = nn.conv_bn { inp, half }
  self.conv4, self.bn4 = nn.conv_bn { half, half, kernel = 3, stride = 2, groups = half }
  self.conv5, self.bn5 = nn.conv_bn { half, half }
end

function DownBlock:forward(x)
  local left = self.bn1(self.conv1(x))
  left = nn.relu(self.bn2(self.conv2(left)))
  local right = nn.relu(self.bn3(self.conv3(x)))
  right = self.bn4(self.conv4(right))
  right = nn.relu(self.bn5(self.conv5(right)))
  return nn.concat({ left, right }, { shuffle = 2 })
end

local ShuffleNet = nn.Module("ShuffleNetV2")

function ShuffleNet:init(cfg)
  local out, channels = widths(cfg.width), stem
  self.conv1, self.bn1 = nn.conv_bn { cfg.input[1], channels, kernel = 3 }
  for i, n in ipairs(blocks) do
    local layer = nn.Sequential { DownBlock(channels, out[i]) }
    for _ = 1, n do layer:append(BasicBlock(out[i])) end
    self["layer" .. i] = layer
    channels = out[i]
  end
  self.conv2, self.bn2 = nn.conv_bn { channels, out[4] }
  self.linear = nn.Linear { out[4], cfg.classes }
end

function ShuffleNet:forward(x)
  x = nn.relu(self.bn1(self.conv1(x)))
  for i = 1, #blocks do x = self["layer" .. i](x) end
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
