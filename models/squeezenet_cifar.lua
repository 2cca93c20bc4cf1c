--- SqueezeNet for 32x32 images (Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet:
-- AlexNet-level accuracy with 50x fewer parameters", 2016), in the form commonly trained on CIFAR:
-- a stem of stride 1, three poolings of 2, and batch normalisation after every convolution except
-- the last. Parameters have the names of the PyTorch model of the same structure.
local mptl = require "mptl"
local nn = mptl.nn

-- width multiplier -> output channels of the first convolution, then of the squeeze and expand
-- convolutions of each fire module; other multipliers scale the channels of width 1, except the
-- last
local widths = {
  [0.1] = { 12, { 4, 8 }, { 4, 8 }, { 4, 12 }, { 4, 12 }, { 8, 20 }, { 8, 20 }, { 8, 24 }, { 8, 256 } },
  [0.25] = { 24, { 4, 16 }, { 4, 16 }, { 8, 32 }, { 8, 32 }, { 12, 48 }, { 12, 48 }, { 16, 64 }, { 16, 256 } },
  [0.5] = { 48, { 8, 32 }, { 8, 32 }, { 16, 64 }, { 16, 64 }, { 24, 96 }, { 24, 96 }, { 32, 128 }, { 32, 256 } },
  [1] = { 96, { 16, 64 }, { 16, 64 }, { 32, 128 }, { 32, 128 }, { 48, 192 }, { 48, 192 }, { 64, 256 }, { 64, 256 } },
}

local pooled = { [4] = true, [8] = true } -- fire modules with a pooling after them

local kaiming = nn.init.kaiming_normal {}

local function conv_bn(inp, out, kernel, relu)
  return nn.conv_bn { inp, out, kernel = kernel, bias = true, relu = relu, init = kaiming }
end

local Fire = nn.Module("Fire")

function Fire:init(inp, squeeze, expand)
  self.squeeze = nn.Sequential { conv_bn(inp, squeeze, 1, true) }
  self.expand_1x1 = nn.Sequential { conv_bn(squeeze, expand, 1) }
  self.expand_3x3 = nn.Sequential { conv_bn(squeeze, expand, 3) }
end

function Fire:forward(x)
  x = self.squeeze(x)
  return nn.relu(nn.concat { self.expand_1x1(x), self.expand_3x3(x) })
end

local SqueezeNet = nn.Module("SqueezeNet")

function SqueezeNet:init(cfg)
  local width = nn.widths(widths, cfg.width)
  local channels = width[1]
  self.stem = nn.Sequential { conv_bn(cfg.input[1], channels, 3, true) }
  self.stem:append(nn.MaxPool2d(2))
  for i = 2, #width do
    local squeeze, expand = table.unpack(width[i])
    self["fire" .. i] = Fire(channels, squeeze, expand)
    channels = 2 * expand
  end
  self.last = #width
  self.conv10 = nn.Conv2d { channels, cfg.classes, kernel = 1, init = kaiming }
end

function SqueezeNet:forward(x)
  x = self.stem(x)
  for i = 2, self.last do
    x = self["fire" .. i](x)
    if pooled[i] then x = nn.max_pool2d(x, 2) end
  end
  return nn.flatten(nn.avg_pool2d(self.conv10(x), 4))
end

return {
  model = function(cfg) return SqueezeNet(cfg) end,
  dataset = "cifar10",
  batch = 128,
  epochs = 200,
  optimizer = mptl.optim.sgd { lr = 0.1, momentum = 0.9, weight_decay = 5e-4 },
  schedule = mptl.schedule.cosine {},
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 16, growth_interval = "1 epoch" },
  precision = mptl.precision.demotion { formats = "hfp8", ratio = 0.5, threshold = 0.01 },
}
