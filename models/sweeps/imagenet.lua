-- ShuffleNet-v2 on ImageNet (Lee, Sharma, Aiken, TMLR 2023): accuracy against memory, with the
-- script's own settings: 90 epochs, batches of 1024.
--   mptl sweep imagenet --data DIR --out OUT && mptl report OUT
local sweep = require "mptl.sweep"

return {
  common = { script = "shufflenetv2_imagenet", dataset = "imagenet" },
  runs = {
    { policy = { "fp32", "operator", "amp", "uniform_low" } },
    { policy = "demotion", ratio = sweep.range(0, 1, 0.1), threshold = 0.01 },
  },
}
