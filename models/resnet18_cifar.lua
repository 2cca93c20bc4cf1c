--- ResNet-18 for 32x32 images (He, Zhang, Ren, Sun, "Deep Residual Learning", CVPR 2016), in the
-- form commonly trained on CIFAR: a 3x3 stem, no max-pooling. Parameters have the names of the
-- PyTorch model of the same structure.
local mptl = require "mptl"
local nn = mptl.nn

-- width, blocks, stride of the first block
local sections = {
  { 64, 2, 1 },
  { 128, 2, 2 },
  { 256, 2, 2 },
  { 512, 2, 2 },
}

local kaiming = nn.init.kaiming_normal { mode = "fan_out" }

local function conv(inp, out, kernel, stride)
  return nn.Conv2d { inp, out, kernel = kernel, stride = stride, padding = kernel // 2, bias = false, init = kaiming }
end

local BasicBlock = nn.Module("BasicBlock")

function BasicBlock:init(inp, out, stride)
  self.conv1 = conv(inp, out, 3, stride)
  self.bn1 = nn.BatchNorm2d(out)
  self.conv2 = conv(out, out, 3, 1)
  self.bn2 = nn.BatchNorm2d(out)
  self.shortcut = nn.Sequential {}
  if stride ~= 1 or inp ~= out then
    self.shortcut = nn.Sequential { conv(inp, out, 1, stride), nn.BatchNorm2d(out) }
  end
end

function BasicBlock:forward(x)
  local y = nn.relu(self.bn1(self.conv1(x)))
  return nn.relu(self.bn2(self.conv2(y)) + self.shortcut(x))
end

local ResNet = nn.Module("ResNet")

function ResNet:init(cfg)
  local channels = nn.scaled(64, cfg.width)
  self.conv1 = conv(cfg.input[1], channels, 3, 1)
  self.bn1 = nn.BatchNorm2d(channels)
  for i, section in ipairs(sections) do
    local out, layer = nn.scaled(section[1], cfg.width), nn.Sequential {}
    for block = 1, section[2] do
      layer:append(BasicBlock(channels, out, block == 1 and section[3] or 1))
      channels = out
    end
    self["layer" .. i] = layer
  end
  self.linear = nn.Linear { channels, cfg.classes }
end

function ResNet:forward(x)
  x = nn.relu(self.bn1(self.conv1(x)))
  for i = 1, #sections do x = self["layer" .. i](x) end
  return self.linear(nn.flatten(nn.avg_pool2d(x, 4)))
end

return {
  model = function(cfg) return ResNet(cfg) end,
  dataset = "cifar10",
  batch = 128,
  epochs = 200,
  optimizer = mptl.optim.sgd { lr = 0.1, momentum = 0.9, weight_decay = 5e-4 },
  schedule = mptl.schedule.cosine {},
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 16, growth_interval = "1 epoch" },
  precision = mptl.precision.demotion { formats = "hfp8", ratio = 0.5, threshold = 0.01 },
}
