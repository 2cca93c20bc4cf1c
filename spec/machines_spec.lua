-- Smaller machines give the same numbers, except for the order of sums. Environment variables simulate other processors.
local isas = require "support.isas"
local runs = require "support.runs"

local script = [[
local nn = require("mptl").nn
return {
  model = function()
    return nn.Sequential {
      nn.Conv2d { 3, 16, kernel = 3, stride = 2, padding = 1, bias = false }, nn.BatchNorm2d(16), nn.ReLU(),
      nn.Conv2d { 16, 16, kernel = 3, stride = 2, padding = 1, bias = false }, nn.BatchNorm2d(16), nn.ReLU(),
      nn.AvgPool2d(8), nn.Flatten(), nn.Linear { 16, 10 },
    }
  end,
  dataset = "synthetic", batch = 32, epochs = 1, limit_train = 64, limit_test = 64,
}
]]

local machines = { ["without vectors"] = "MPTL_ISA=scalar DNNL_MAX_CPU_ISA=SSE41 ONEDNN_MAX_CPU_ISA=SSE41" }
for _, isa in ipairs(isas) do
  if isa == "avx2" then machines["without AVX-512"] = "MPTL_ISA=avx2 DNNL_MAX_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX2" end
end

describe("a machine", function()
  local dir, here_fp32, here_low

  teardown(function() runs.remove(dir) end)

  local function train(out, options, environment)
    local code, _, err = runs.mptl(dir, ("train small.lua --quiet --out %s %s"):format(out, options), environment)
    assert.same({ 0, "" }, { code, err })
    return runs.metrics(dir .. "/" .. out)[1]
  end

  setup(function()
    dir = runs.directory()
    runs.spill(dir .. "/small.lua", script)
    here_fp32, here_low = train("here-fp32", "--policy fp32"), train("here-low", "--policy uniform_low")
  end)

  for machine, environment in pairs(machines) do
    it(machine .. " trains to the same loss in binary32", function()
      local there = train(machine:gsub(" ", "-") .. "-fp32", "--policy fp32", environment)
      assert.near(here_fp32.train_loss, there.train_loss, 1e-4)
      assert.near(here_fp32.test_loss, there.test_loss, 1e-3)
    end)

    it(machine .. " trains to nearly the same loss in low precision, where a sum's last bit may round otherwise", function()
      local there = train(machine:gsub(" ", "-") .. "-low", "--policy uniform_low", environment)
      assert.near(here_low.train_loss, there.train_loss, 0.02)
    end)

    it(machine .. " is recognised by mptl doctor", function()
      local _, out = runs.mptl(dir, "doctor", environment)
      assert.matches("kernels +" .. environment:match "MPTL_ISA=(%w+)", out)
      assert.matches("products +in f32 up to 8 significant bits, in f32 up to 16", out)
    end)
  end
end)
