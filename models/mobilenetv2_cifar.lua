--- MobileNet-v2 for 32x32 images (Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted
-- residuals and linear bottlenecks", CVPR 2018), in the form commonly trained on CIFAR: ReLU, fewer
-- strides, and 1x1 shortcuts where a block of stride 1 changes its width. Parameters have the names
-- of the PyTorch model of the same structure.
local mptl = require "mptl"
local nn = mptl.nn

-- expansion, width, blocks, stride of the first block
local sections = {
  { 1, 16, 1, 1 },
  { 6, 24, 2, 1 },
  { 6, 32, 3, 2 },
  { 6, 64, 4, 2 },
  { 6, 96, 3, 1 },
  { 6, 160, 3, 2 },
  { 6, 320, 1, 1 },
}

local Block = nn.Module("Block")

function Block:init(inp, out, expansion, stride)
  local middle = inp * expansion
  self.stride = stride
  self.conv1, self.bn1 = nn.conv_bn { inp, middle }
  self.conv2, self.bn2 = nn.conv_bn { middle, middle, kernel = 3, stride = stride, groups = middle }
  self.conv3, self.bn3 = nn.conv_bn { middle, out }
  self.shortcut = nn.Sequential {}
  if stride == 1 and inp ~= out then self.shortcut = nn.Sequential { nn.conv_bn { inp, out } } end
end

function Block:forward(x)
  local y = nn.relu(self.bn1(self.conv1(x)))
  y = nn.relu(self.bn2(self.conv2(y)))
  y = self.bn3(self.conv3(y))
  return self.stride == 1 and y + self.shortcut(x) or y
end

local MobileNet = nn.Module("MobileNetV2")

function MobileNet:init(cfg)
  local function width(w) return nn.scaled(w, cfg.width) end
  local channels, head = width(32), nn.scaled(1280, math.max(1, cfg.width))
  self.conv1, self.bn1 = nn.conv_bn { cfg.input[1], channels, kernel = 3 }
  self.layers = nn.Sequential {}
  for _, section in ipairs(sections) do
    local expansion, out, blocks, stride = table.unpack(section)
    for block = 1, blocks do
      self.layers:append(Block(channels, width(out), expansion, block == 1 and stride or 1))
      channels = width(out)
    end
  end
  self.conv2, self.bn2 = nn.conv_bn { channels, head }
  self.linear = nn.Linear { head, cfg.classes, init = nn.init.normal { std = 0.01 } }
end

function MobileNet:forward(x)
  x = nn.relu(self.bn1(self.conv1(x)))
  x = nn.relu(self.bn2(self.conv2(self.layers(x))))
  return self.linear(nn.flatten(nn.avg_pool2d(x, 4)))
end

return {
  model = function(cfg) return MobileNet(cfg) end,
  dataset = "cifar10",
  batch = 128,
  epochs = 200,
  optimizer = mptl.optim.sgd { lr = 0.1, momentum = 0.9, weight_decay = 5e-4 },
  schedule = mptl.schedule.cosine {},
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 16, growth_interval = "1 epoch" },
  precision = mptl.precision.demotion { formats = "hfp8", ratio = 0.5, threshold = 0.01 },
}
