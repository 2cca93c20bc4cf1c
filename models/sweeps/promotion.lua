-- What promotion changes: demotion with and without it.
--   mptl sweep promotion --data DIR --out OUT && mptl report OUT
local sweep = require "mptl.sweep"

return {
  common = {
    script = { "resnet18_cifar", "squeezenet_cifar", "shufflenetv2_cifar", "mobilenetv2_cifar" },
    dataset = "cifar10", width = 1, epochs = 200, policy = "demotion", ratio = sweep.range(0, 1, 0.1),
  },
  runs = { { threshold = { 0.01, false } } },
}
