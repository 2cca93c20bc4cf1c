-- 8-bit tensor cores: where they are used, and that their operands are the formats' codes. On the CUDA backend's build for the
-- host, which pretends to be a device of any compute capability (MPTL_CUDA_HOST_CAPABILITY; 9.0 in this process).
local core = require "mptl.core"
local net = require "support.network"

local cuda = core.device "cuda"
local ocp = { v = "fp8_e4m3fn", dv = "fp8_e5m2", theta = "fp8_e4m3fn", dtheta = "fp32" }

-- Lines of spec/support/fp8_passes.lua.
local function passes(capability)
  local command = ('MPTL_CUDA_HOST_CAPABILITY=%d "%s" "%s/spec/support/fp8_passes.lua" f32 auto narrow fp8'):format(
    capability, os.getenv "MPTL_LUA", os.getenv "MPTL_ROOT")
  local lines = {}
  for line in assert(io.popen(command)):lines() do lines[#lines + 1] = line end
  return lines
end

--- A convolution and a linear layer with so many channels and outputs; inputs, parameters and the gradients of outputs in the
-- formats of a table. Returns the program, and a function that runs a step and gives its results by name.
local function compile(setting, formats, channels, storage, values)
  local n = 3
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { channels, 4, 4 } }, { out = channels, kernel = 3, padding = 1 })
  x = g:add("relu", "relu", { x })
  x = g:add("linear", "linear", { g:flatten(x) }, { out = channels })
  g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { x }) })
  local a = core.assignment(g, n, net.fp32)
  for op = 0, 3 do
    for _, role in ipairs { "v", "dv", "theta" } do
      if a:get(op, role) then a:set(op, role, formats[role]) end
    end
  end
  local model = core.model(g, { seed = 3, device = cuda })
  local program = core.program(model, a, { keep_all = true, input_gradient = true, compute = setting, storage = storage })
  local function step()
    local numbers = net.numbers(n * 16 * channels, 5)
    for i, number in ipairs(numbers) do numbers[i] = values(number) end
    program:forward(core.tensor({ #numbers }, numbers), { 1, 2, 0 }, 7)
    program:backward(1024)
    local results = { dx = program:read(0, "gradient"):totable(), dconv = program:read(1, "gradient"):totable() }
    for op, name in ipairs { "conv", "relu", "linear" } do results[name] = program:read(op):totable() end
    for _, p in ipairs(g:parameters()) do results["d" .. p.name] = model:grad(p.name):totable() end
    return results
  end
  return program, step
end

describe("8-bit tensor cores", function()
  it("are not used on Ampere, whose bf16 units are as exact", function()
    local line = "bf16 bf16 bf16 tf32 bf16 tf32"
    assert.same({ "f32: f32 f32 f32 f32 f32 f32", "auto: " .. line, "narrow: " .. line, "fp8: " .. line }, passes(80))
  end)

  it("are used on Ada and Hopper only when asked for: they sum in fewer bits there", function()
    local line = "bf16 bf16 bf16 tf32 bf16 tf32"
    for _, capability in ipairs { 89, 90 } do
      assert.same({ "f32: f32 f32 f32 f32 f32 f32", "auto: " .. line, "narrow: " .. line, "fp8: fp8 fp8 fp8 tf32 bf16 tf32" },
        passes(capability))
    end
  end)

  it("are used from 10.0 on wherever both formats are OCP's, except for channel groups, unless binary32 is asked for", function()
    local line = "fp8 fp8 fp8 tf32 bf16 tf32"
    assert.same({ "f32: f32 f32 f32 f32 f32 f32", "auto: " .. line, "narrow: " .. line, "fp8: " .. line }, passes(100))
  end)

  it("are used by no setting on the CPU", function()
    for _, formats in ipairs { { "fp8_e4m3fn", "fp8_e4m3fn" }, { "FP(6,9,0)", "fp8_e4m3fn" }, { "fp32", "fp32" } } do
      assert.equal(core.compute(formats[1], formats[2], "auto"), core.compute(formats[1], formats[2], "fp8"))
    end
  end)

  -- The library has no 8-bit products of 20 channels, nor of E5M2 by E5M2: the next wider type is used.
  for _, case in ipairs {
    { "16 channels", ocp, 16 }, { "20 channels", ocp, 20 },
    { "gradients and inputs only", { v = "fp8_e4m3fn", dv = "fp8_e5m2", theta = "FP(4,3,4)" }, 16 },
    { "E4M3 everywhere", { v = "fp8_e4m3fn", dv = "fp8_e4m3fn", theta = "fp8_e4m3fn" }, 16 },
    { "E5M2 everywhere", { v = "fp8_e5m2", dv = "fp8_e5m2", theta = "fp8_e5m2" }, 16 },
  } do
    local name, formats, channels = table.unpack(case)
    for _, storage in ipairs { "packed", "emulated" } do
      it(("give the numbers of binary32: %s, %s"):format(name, storage), function()
        local function any(x) return x * 4 end
        local _, f32 = compile("f32", formats, channels, storage, any)
        local _, fp8 = compile("fp8", formats, channels, storage, any)
        local want, got = f32(), fp8() -- the host sums in one order in all types: the same bits
        for result, values in pairs(want) do
          local nonzero = 0
          for i, x in ipairs(values) do
            assert.equal(("%a"):format(x), ("%a"):format(got[result][i]), result)
            if x ~= 0 then nonzero = nonzero + 1 end
          end
          assert.is_true(nonzero > 0, result)
        end
      end)
    end
  end

  it("multiply packed values without copying them", function()
    local function scratch(setting, channels)
      return compile(setting, ocp, channels, "packed", math.abs):memory().scratch
    end
    local fp8, auto = scratch("fp8", 16), scratch("auto", 16)
    -- What takes most is the linear layer's gradient of the weights. In bf16 it copies 3 x 256 inputs and 3 x 16 gradients,
    -- each in a multiple of 256 bytes.
    assert.equal(1536 + 256, auto - fp8)
    assert.equal(scratch("auto", 20), scratch("fp8", 20)) -- not in 8 bits
  end)
end)
