-- The paper's comparisons at a size for two cores: networks of a tenth of the width, ten epochs. A
-- run takes 5 to 15 minutes.
--   mptl sweep cifar10_small --data DIR --out OUT && mptl report OUT
local sweep = require "mptl.sweep"

return {
  common = {
    script = { "squeezenet_cifar", "resnet18_cifar", "shufflenetv2_cifar", "mobilenetv2_cifar" },
    dataset = "cifar10", width = 0.1, epochs = 10, seed = 1,
  },
  runs = {
    { policy = { "fp32", "operator", "amp", "uniform_low" } },
    { policy = "demotion", ratio = sweep.range(0, 1, 0.1) },
    -- no promotion; ratio 1 would be uniform_low
    { policy = "demotion", ratio = { 0.5, 0.9 }, threshold = false },
    { policy = "increasing", ratio = { 0.3, 0.5, 0.7 } },
    { policy = "random", ratio = 0.5, policy_seed = { 1, 2, 3 } },
  },
}
