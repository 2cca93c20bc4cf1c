--- A small network with every operator, some of them in one stage: see spec/golden/run. With GOLDEN=other it
-- has the other loss and the other optimizer, with clipped gradients.
local mptl = require "mptl"
local nn = mptl.nn

local other = os.getenv "GOLDEN" == "other"
local Net = nn.Module("Net")

function Net:init(cfg)
  self.stem = nn.Conv2d { cfg.input[1], 8, kernel = 3, padding = 1, bias = false }
  self.stem_bn = nn.BatchNorm2d(8)
  self.left = nn.Conv2d { 8, 8, kernel = 3, padding = 1, groups = 8 }
  self.left_bn = nn.BatchNorm2d(8)
  self.right = nn.Conv2d { 4, 6, kernel = 3, padding = 1 }
  self.other = nn.Conv2d { 4, 6, kernel = 1 }
  self.gate = nn.Conv2d { 14, 14, kernel = 1 }
  self.strided = nn.Conv2d { 14, 16, kernel = 3, stride = 2, padding = 1, bias = false }
  self.strided_bn = nn.BatchNorm2d(16)
  self.hidden = nn.Linear { 64, 16 }
  self.norm, self.row_norm = nn.LayerNorm(16), nn.LayerNorm(16)
  self.last = nn.Linear { 16, cfg.classes }
end

function Net:forward(x)
  x = nn.relu(self.stem_bn(self.stem(x)))
  local a, b = nn.split(x, 4)
  local y = nn.concat({ nn.relu6(self.left_bn(self.left(x)) + x), self.right(a) + self.other(b) }, { shuffle = 2 })
  y = nn.max_pool2d(y, 3, 2, 1)
  y = y * nn.sigmoid(self.gate(y))
  y = self.norm(nn.relu(self.strided_bn(self.strided(y))))
  local flat = nn.dropout(nn.flatten(nn.avg_pool2d(y, 3, 1, 1, false)), 0.25)
  return self.last(nn.relu(self.hidden(flat)) + self.row_norm(nn.gelu(nn.gelu(nn.mean(y)), "tanh")))
end

return {
  model = function(cfg) return Net(cfg) end,
  dataset = "synthetic",
  batch = 16,
  epochs = 2,
  loss = other and nn.mse_loss or nil,
  optimizer = other and mptl.optim.adamw { lr = 0.01, clip_norm = 1 }
    or mptl.optim.sgd { lr = 0.05, momentum = 0.9, weight_decay = 5e-4 },
  schedule = mptl.schedule.cosine {},
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 16, growth_interval = "1 epoch" },
  precision = mptl.precision.demotion { formats = "hfp8", ratio = 0.5, threshold = 0.01 },
}
