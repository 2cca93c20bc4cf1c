-- Accuracy against memory on CIFAR-10 (Lee, Sharma, Aiken, TMLR 2023, figure 3): four networks, and
-- the assignments that the figure compares.
--   mptl sweep cifar10 --data DIR --out OUT && mptl report OUT
-- 200 epochs at full width are for a cluster (--slurm) or a GPU. cifar10_small.lua is for a laptop.
local sweep = require "mptl.sweep"

return {
  common = {
    script = { "resnet18_cifar", "squeezenet_cifar", "shufflenetv2_cifar", "mobilenetv2_cifar" },
    dataset = "cifar10", width = 1, epochs = 200,
  },
  runs = {
    { policy = { "fp32", "operator", "amp", "uniform_low" } },
    { policy = "demotion", ratio = sweep.range(0, 1, 0.1), threshold = 0.01 },
  },
}
