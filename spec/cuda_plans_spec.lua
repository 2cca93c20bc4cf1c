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

  -- {device, types, channels}. All of ResNet-18's in bf16: spec/long.
  for _, case in ipairs { { "a100", "bf16", 8 }, { "b200", "e5m2:e4m3", 16 } } do
    local device, kind, c = table.unpack(case)
    it(("compiles engines for narrow operands and binary32 results, all passes: %s, %s"):format(device, kind), function()
      if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
      for _, line in ipairs(convolutions.plans(device, kind, { { 2, c, 8, 8, c, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 } })) do
        assert.equal("ok", line:sub(1, 2), line)
      end
    end)
  end
end)
