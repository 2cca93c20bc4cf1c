-- The example policies, with the settings of cifar10_small's SqueezeNet runs, for comparison with
-- them.
--   mptl sweep policies --data DIR --out OUT && mptl report OUT
return {
  common = { script = "squeezenet_cifar", dataset = "cifar10", width = 0.1, epochs = 10, seed = 1 },
  runs = {
    { policy = { "../policies/saved_per_error.lua", "../policies/least_lost.lua", "../policies/promote_lost.lua",
      "../policies/gradually.lua" } },
  },
}
