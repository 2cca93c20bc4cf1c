-- Accuracy against memory on CIFAR-100, for wide to narrow networks: low precision costs narrow
-- networks more accuracy.
--   mptl sweep cifar100 --data DIR --out OUT && mptl report OUT
local sweep = require "mptl.sweep"

return {
  common = {
    script = { "resnet18_cifar", "squeezenet_cifar", "shufflenetv2_cifar", "mobilenetv2_cifar" },
    dataset = "cifar100", width = { 1, 0.5, 0.25, 0.1 }, epochs = 200,
  },
  runs = {
    { policy = { "fp32", "operator", "amp", "uniform_low" } },
    { policy = "demotion", ratio = sweep.range(0, 1, 0.1), threshold = 0.01 },
  },
}
