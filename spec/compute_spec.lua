-- Exact narrow compute: where bf16 units multiply, the products are those of binary32.
local core = require "mptl.core"
local net = require "support.network"

local has_bf16 = core.compute("FP(4,3,4)", "FP(4,3,4)") == "bf16"

describe("core.compute", function()
  it("takes bf16 units for formats of at most 8 significant bits, if the processor has them", function()
    local narrow = has_bf16 and "bf16" or "f32"
    assert.equal(narrow, core.compute("FP(4,3,4)", "FP(5,2,0)"))
    assert.equal(narrow, core.compute("FP(5,7,0)", "fp8_e4m3fn"))
    assert.equal("f32", core.compute("FP(5,8,0)", "FP(4,3,4)"))
    assert.equal("f32", core.compute("FP(6,9,0)", "FP(6,9,0)"))
    assert.equal("f32", core.compute("fp32", "FP(4,3,4)"))
  end)

  it("keeps to binary32 where units that take subnormals for zero would lose something", function()
    assert.equal("f32", core.compute("FP(4,3,120)", "FP(4,3,0)")) -- values below 2^-126
    assert.equal("f32", core.compute("FP(4,3,60)", "FP(4,3,60)")) -- products below 2^-126
    assert.equal("f32", core.compute("bf16", "bf16"))
  end)
end)

--- One 3x3 convolution (strided or not) and one linear layer, inputs and parameters in low formats, everything they make in fp32.
local function compile(compute, values, weights)
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { 16, 8, 8 } }, { out = 24, kernel = 3, padding = 1, stride = 2, bias = false })
  x = g:add("relu", "relu", { x }) -- brings the convolution's output back to a low format
  x = g:add("linear", "linear", { g:view(x, { 24 * 16 }) }, { out = 5 })
  g:add("nll_loss", "loss", { x })
  local a = core.assignment(g, 4, net.hfp8)
  for _, group in ipairs(a:groups()) do a:set_group(group.index, true) end
  for _, op in ipairs { 1, 3 } do
    a:set(op, "v", "fp32")
    a:set(op, "dtheta", "fp32")
  end
  a:set(0, "dv", "fp32")
  a:set(2, "dv", "fp32")
  local model = core.model(g)
  for _, name in ipairs { "conv.weight", "linear.weight", "linear.bias" } do
    local t = model:tensor(name)
    for i = 1, t:numel() do t:set(i, weights(i)) end
  end
  local program = core.program(model, a, { keep_all = true, input_gradient = true, compute = compute })
  local images = core.tensor { 4, 8, 8, 16 }
  for i = 1, images:numel() do images:set(i, values(i)) end
  program:forward(images, { 0, 1, 2, 3 })
  program:backward(4)
  return {
    conv = program:read(1), linear = program:read(3), dx = program:read(0, "gradient"), drelu = program:read(2, "gradient"),
    dconv = model:grad "conv.weight", dlinear = model:grad "linear.weight",
  }
end

describe("a program", function()
  it("gets the same bits from either type where sums are exact", function()
    local function small(i) return (i * 7 + i // 5) % 9 - 4 end
    local f32, auto = compile("f32", small, small), compile("auto", small, small)
    for name, tensor in pairs(f32) do assert.equal(tensor:tostring(), auto[name]:tostring(), name) end
  end)

  it("gets the same products of any values: results differ by the order of sums only", function()
    local numbers = net.numbers(20000, 11)
    local function any(i) return numbers[i] end
    local f32, auto = compile("f32", any, any), compile("auto", any, any)
    for name, tensor in pairs(f32) do
      local a, b = tensor:totable(), auto[name]:totable()
      for i = 1, #a do assert.near(a[i], b[i], 2e-5) end -- at most 1024 products below 2, in binary32
    end
  end)

  it("refuses an unknown compute type", function()
    assert.has_error(function() compile("fp8", math.abs, math.abs) end, "compute: fp8, accepted are auto, f32")
  end)
end)
