--- ResNet-50 for images of 224x224 (He, Zhang, Ren, Sun, "Deep Residual Learning", CVPR 2016), in
-- the form of torchvision's resnet50: the 3x3 convolution of a bottleneck has its stride.
-- Parameters have the names of torchvision's.
local mptl = require "mptl"
local nn = mptl.nn

-- width, blocks, stride of the first block
local sections = {
  { 64, 3, 1 },
  { 128, 4, 2 },
  { 256, 6, 2 },
  { 512, 3, 2 },
}

local expansion = 4 -- a block has this many times as many output channels as its width

local kaiming = nn.init.kaiming_normal { mode = "fan_out" }

local function conv_bn(inp, out, kernel, stride)
  return nn.conv_bn { inp, out, kernel = kernel, stride = stride, init = kaiming }
end

local Bottleneck = nn.Module("Bottleneck")

function Bottleneck:init(inp, width, stride)
  local out = expansion * width
  self.conv1, self.bn1 = conv_bn(inp, width, 1, 1)
  self.conv2, self.bn2 = conv_bn(width, width, 3, stride)
  self.conv3, self.bn3 = conv_bn(width, out, 1, 1)
  self.downsample = nn.Sequential {}
  if stride ~= 1 or inp ~= out then self.downsample = nn.Sequential { conv_bn(inp, out, 1, stride) } end
end

function Bottleneck:forward(x)
  local y = nn.relu(self.bn1(self.conv1(x)))
  y = nn.relu(self.bn2(self.conv2(y)))
  return nn.relu(self.bn3(self.conv3(y)) + self.downsample(x))
end

local ResNet = nn.Module("ResNet")

function ResNet:init(cfg)
  local channels = nn.scaled(64, cfg.width)
  self.conv1, self.bn1 = conv_bn(cfg.input[1], channels, 7, 2)
  self.maxpool = nn.MaxPool2d { kernel = 3, stride = 2, padding = 1 }
  for i, section in ipairs(sections) do
    local width, layer = nn.scaled(section[1], cfg.width), nn.Sequential {}
    for block = 1, section[2] do
      layer:append(Bottleneck(channels, width, block == 1 and section[3] or 1))
      channels = expansion * width
    end
    self["layer" .. i] = layer
  end
  self.fc = nn.Linear { channels, cfg.classes }
end

function ResNet:forward(x)
  x = self.maxpool(nn.relu(self.bn1(self.conv1(x))))
  for i = 1, #sections do x = self["layer" .. i](x) end
  return self.fc(nn.mean(x))
end

return {
  model = function(cfg) return ResNet(cfg) end,
  dataset = "imagenet",
  batch = 256,
  epochs = 90,
  optimizer = mptl.optim.sgd { lr = 0.1, momentum = 0.9, weight_decay = 1e-4 },
  schedule = mptl.schedule.cosine {},
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 16, growth_interval = "1 epoch" },
  precision = mptl.precision.demotion { formats = "hfp8", ratio = 0.5, threshold = 0.01 },
}
