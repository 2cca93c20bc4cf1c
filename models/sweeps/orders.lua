-- Does it matter which groups are demoted first? Decreasing size (demotion), increasing, three
-- random orders.
--   mptl sweep orders --data DIR --out OUT && mptl report OUT
local sweep = require "mptl.sweep"

return {
  common = {
    script = { "resnet18_cifar", "squeezenet_cifar", "shufflenetv2_cifar", "mobilenetv2_cifar" },
    dataset = "cifar10", width = 1, epochs = 200, threshold = 0.01, ratio = sweep.range(0.1, 0.9, 0.1),
  },
  runs = {
    { policy = { "demotion", "increasing" } },
    { policy = "random", policy_seed = { 1, 2, 3 } },
  },
}
