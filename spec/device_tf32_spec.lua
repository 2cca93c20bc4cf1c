-- --compute tf32: what would be multiplied in binary32 is multiplied in TF32. On the CUDA backend's build for the host, which
-- rounds such operands to 11 significant bits.
local compute = require "mptl.compute"
local core = require "mptl.core"
local net = require "support.network"
local precision = require "mptl.precision"
local process = require "support.process"

local cuda = core.device "cuda"

-- What products are computed in on a device of a compute capability: words.
local function on(capability, setting, ...)
  local code = {}
  for i, product in ipairs { ... } do
    local a, b, groups = table.unpack(product)
    code[i] = ("c.compute(%q, %q, %q, d, %d)"):format(a, b, setting, groups or 1)
  end
  local path = process.file("on.lua",
    ('local c = require "mptl.core"\nlocal d = c.device "cuda"\nprint(%s)\n'):format(table.concat(code, ", ")))
  local pipe <close> = assert(io.popen(("MPTL_CUDA_HOST_CAPABILITY=%d '%s' '%s'"):format(capability, os.getenv "MPTL_LUA", path)))
  return (pipe:read "a":gsub("%s+$", ""):gsub("\t", " "))
end

--- The results, as bytes by name, of a step of a convolution, grouped or not, and a linear layer.
-- Everything is in one format, except their results.
local function compile(setting, format, groups)
  local n, channels = 3, 6
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { channels, 4, 4 } },
    { out = channels, kernel = 3, padding = 1, groups = groups, bias = false })
  x = g:add("relu", "relu", { x })
  x = g:add("linear", "linear", { g:flatten(x) }, { out = 5 })
  g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { x }) })
  local a = core.assignment(g, n, net.fp32)
  for op = 0, 3 do
    for _, role in ipairs { "v", "dv", "theta" } do
      if a:get(op, role) then a:set(op, role, format) end
    end
  end
  for _, op in ipairs { 1, 3 } do a:set(op, "v", "fp32") end
  for _, op in ipairs { 0, 2 } do a:set(op, "dv", "fp32") end
  local model = core.model(g, { seed = 3, device = cuda })
  local program = core.program(model, a, { keep_all = true, input_gradient = true, compute = setting })
  program:forward(core.tensor({ n * 16 * channels }, net.numbers(n * 16 * channels, 5)), { 1, 2, 0 })
  program:backward(1)
  local results = {
    conv = program:read(1), linear = program:read(3), dx = program:read(0, "gradient"), drelu = program:read(2, "gradient"),
  }
  for _, p in ipairs(g:parameters()) do results["d" .. p.name] = model:grad(p.name) end
  for name, tensor in pairs(results) do results[name] = tensor:tostring() end
  return results
end

describe("--compute tf32", function()
  it("uses TF32 where auto uses binary32, and elsewhere what auto uses", function()
    local products = {
      { "fp32", "fp32" }, { "fp32", "FP(4,3,4)" }, { "FP(5,11,0)", "FP(4,3,4)" }, { "FP(4,3,auto)", "FP(4,3,auto)" },
      { "FP(4,3,4)", "FP(4,3,4)" }, { "FP(6,9,0)", "FP(4,3,4)" }, { "fp32", "fp32", 6 },
    }
    for _, capability in ipairs { 80, 90 } do
      assert.equal("tf32 tf32 tf32 tf32 bf16 tf32 tf32", on(capability, "tf32", table.unpack(products)))
      assert.equal("f32 f32 f32 f32 bf16 tf32 f32", on(capability, "auto", table.unpack(products)))
    end
  end)

  it("is the same as auto on devices without TF32", function()
    assert.equal("f32 f32", on(75, "tf32", { "fp32", "fp32" }, { "FP(4,3,4)", "FP(4,3,4)" }))
  end)

  it("applies to sums of gradients, which are in binary32", function()
    local g = core.graph()
    local x = g:add("conv2d", "conv", { g:input { 4, 2, 2 } }, { out = 4 })
    x = g:add("add", "add", { g:add("relu", "relu", { x }), x })
    g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { g:add("mean", "mean", { x }) }) })
    local op = precision.plan(precision.uniform_low(), g, 2).graph:operator "conv"
    assert.same({ "bf16", "tf32", "tf32" }, { compute.passes(op, "tf32", cuda) })
    assert.same({ "bf16", "f32", "f32" }, { compute.passes(op, "auto", cuda) })
  end)

  for _, groups in ipairs { 1, 2 } do
    it(("multiplies operands rounded to TF32, in all passes: %d groups"):format(groups), function()
      local fp32, rounded = compile("f32", "fp32", groups), compile("f32", "FP(8,10,0)", groups)
      local tf32, exact = compile("tf32", "fp32", groups), compile("tf32", "FP(8,10,0)", groups)
      for _, name in ipairs { "conv", "linear", "dx", "drelu", "dconv.weight", "dlinear.weight" } do
        assert.is_true(rounded[name] == exact[name], name) -- these are exact in TF32
        assert.is_true(fp32[name] ~= tf32[name], name)
      end
      assert.is_true(rounded.conv == tf32.conv)
    end)
  end

  it("is the same as auto on the CPU", function()
    for _, formats in ipairs { { "fp8_e4m3fn", "fp8_e4m3fn" }, { "FP(6,9,0)", "FP(4,3,4)" }, { "fp32", "fp32" } } do
      assert.equal(core.compute(formats[1], formats[2], "auto"), core.compute(formats[1], formats[2], "tf32"))
    end
  end)
end)
