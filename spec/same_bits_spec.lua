-- With binary32 products, a training has the same bits for every instruction set and number of threads; with products in bf16,
-- for every number of threads.
local isas = require "support.isas"
local runs = require "support.runs"
local units = require "support.units"

local trainings = {
  { "every operator in binary32", "spec/golden/every_operator.lua", "--policy fp32 --image-size 8" },
  { "every operator in mixed precision", "spec/golden/every_operator.lua", "--policy demotion --image-size 8" },
  { "ResNet-18 in binary32", "models/resnet18_cifar.lua", "--policy fp32 --width 0.1 --batch 32 --dataset synthetic" },
  { "MobileNet-V2 with stochastic rounding", "models/mobilenetv2_cifar.lua",
    "--policy uniform_low --rounding stochastic --width 0.1 --batch 32 --dataset synthetic" },
}

describe("training", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  local function train(name, script, options, compute, isa, threads)
    local command = "train %s --quiet --compute %s --epochs 1 --limit-train 40 --limit-test 10 %s --threads %d --out %s"
    local code, _, err = runs.mptl(dir, command:format(script, compute, options, threads, name), "MPTL_ISA=" .. isa)
    assert.equal(0, code, err)
    return runs.slurp(("%s/%s/last.safetensors"):format(dir, name))
  end

  for i, training in ipairs(trainings) do
    it(training[1] .. " has the same bits with any instruction set and number of threads", function()
      local script = os.getenv "MPTL_ROOT" .. "/" .. training[2]
      local first
      for _, isa in ipairs(isas) do
        for _, threads in ipairs { 1, 3 } do
          local name = ("%d-%s-%d"):format(i, isa, threads)
          local bytes = train(name, script, training[3], "f32", isa, threads)
          first = first or bytes
          assert.is_true(bytes == first, name)
        end
      end
    end)
  end

  for _, isa in ipairs(units.isas()) do
    it("has the same bits with any number of threads, with products of any type: " .. isa, function()
      local script, options = os.getenv "MPTL_ROOT" .. "/models/resnet18_cifar.lua", "--width 0.1 --batch 32 --dataset synthetic"
      local first
      for threads = 1, 5, 2 do
        local bytes = train(("%s-%d"):format(isa, threads), script, options, "narrow", isa, threads)
        first = first or bytes
        assert.is_true(bytes == first, ("%d threads"):format(threads))
      end
    end)
  end
end)
