-- Convolutions on NVIDIA GPUs, without one: cuDNN makes its plans for devices that are described to it.
local convolutions = require "support.convolutions"

describe("cuDNN", function()
  for _, device in ipairs { "a100", "h100" } do
    for _, kind in ipairs { "f32", "tf32" } do
      it(("has a plan of every pass of all models' convolutions: %s, %s"):format(device, kind), function()
        if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
        for _, line in ipairs(convolutions.plans(device, kind, convolutions.of(convolutions.models(), 128))) do
          assert.equal("ok", line:sub(1, 2), line)
        end
      end)
    end
  end

  -- All of ResNet-18's: spec/long.
  it("compiles engines for bf16 operands and binary32 results, all passes", function()
    if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
    for _, line in ipairs(convolutions.plans("a100", "bf16", { { 2, 8, 8, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 } })) do
      assert.equal("ok", line:sub(1, 2), line)
    end
  end)

  it("compiles engines for 8-bit operands on a B200, all passes", function()
    if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
    for _, line in ipairs(convolutions.plans("b200", "e5m2:e4m3", { { 2, 16, 8, 8, 16, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 } })) do
      assert.equal("ok", line:sub(1, 2), line)
    end
  end)
end)
