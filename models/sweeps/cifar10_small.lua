-- The paper's comparisons at a size for two cores: networks of a tenth of the width, ten epochs,
-- three seeds. A run takes 5 to 15 minutes. Products are in binary32, so that a run gives the same
-- figures on any processor.
--   mptl sweep cifar10_small --data DIR --out OUT && mptl report OUT
return {
  common = {
    script = { "squeezenet_cifar", "resnet18_cifar", "shufflenetv2_cifar", "mobilenetv2_cifar" },
    dataset = "cifar10", width = 0.1, epochs = 10, seed = { 1, 2, 3 }, compute = "f32",
  },
  runs = {
    { policy = { "fp32", "operator", "amp", "uniform_low" } },
    { policy = "demotion", ratio = { 0, 0.3, 0.5, 0.7, 0.9, 1 } },
    -- no promotion; ratio 1 would be uniform_low
    { policy = "demotion", ratio = { 0.5, 0.9 }, threshold = false },
  },
}
