-- cuDNN compiles engines for bf16 and 8-bit operands, which takes seconds for each pass: see spec/cuda_plans_spec.lua.
local convolutions = require "support.convolutions"

local passes = { "forward", "backward data", "backward weights" }

describe("cuDNN", function()
  for _, device in ipairs { "a100", "h100" } do
    it("compiles engines for ResNet-18 in bf16, images of 3 channels included: " .. device, function()
      if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
      local shapes = convolutions.of({ "resnet18_cifar" }, 128)
      for i, line in ipairs(convolutions.plans(device, "bf16", shapes)) do
        local shape, pass = shapes[(i - 1) // 3 + 1], passes[(i - 1) % 3 + 1]
        assert.equal((pass == "forward" or shape[2] % 2 == 0) and "ok" or "no", line:sub(1, 2), line)
      end
    end)
  end

  -- The types of the passes: e4m3 forward; dy in e5m2 times weights; input times dy in e5m2.
  for _, kind in ipairs { "e4m3", "e5m2:e4m3", "e4m3:e5m2" } do
    it("multiplies 8-bit operands forward only on an H100, in all passes on a B200: " .. kind, function()
      if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
      local shape = { 2, 16, 8, 8, 16, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 }
      for i, line in ipairs(convolutions.plans("h100", kind, { shape })) do
        assert.equal(i == 1 and "ok" or "no", line:sub(1, 2), line)
      end
      for _, line in ipairs(convolutions.plans("b200", kind, { shape })) do assert.equal("ok", line:sub(1, 2), line) end
    end)
  end

  it("multiplies 8-bit operands forward only where channels are no multiples of 16", function()
    if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
    for i, line in ipairs(convolutions.plans("b200", "e4m3", { { 2, 20, 8, 8, 20, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 } })) do
      assert.equal(i == 1 and "ok" or "no", line:sub(1, 2), line)
    end
  end)
end)
