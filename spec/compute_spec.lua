-- Exact narrow compute: where bf16 units multiply, the products are those of binary32.
local core = require "mptl.core"
local compute = require "mptl.compute"
local net = require "support.network"
local precision = require "mptl.precision"

local has_bf16 = core.compute("FP(4,3,4)", "FP(4,3,4)") == "bf16"

describe("core.compute", function()
  local narrow = has_bf16 and "bf16" or "f32"

  it("takes bf16 units for formats of at most 8 significant bits, if the processor has them", function()
    assert.equal(narrow, core.compute("FP(4,3,4)", "FP(5,2,0)"))
    assert.equal(narrow, core.compute("FP(5,7,0)", "fp8_e4m3fn"))
    assert.equal("f32", core.compute("FP(5,8,0)", "FP(4,3,4)"))
    assert.equal("f32", core.compute("FP(6,9,0)", "FP(6,9,0)"))
    assert.equal("f32", core.compute("fp32", "FP(4,3,4)"))
  end)

  it("splits numbers of up to 16 significant bits in two where it is told to", function()
    local two, four = has_bf16 and "2xbf16" or "f32", has_bf16 and "4xbf16" or "f32"
    assert.equal(narrow, core.compute("FP(4,3,4)", "FP(5,2,0)", "narrow"))
    assert.equal(two, core.compute("FP(6,9,0)", "FP(4,3,4)", "narrow"))
    assert.equal(two, core.compute("FP(4,3,4)", "FP(5,15,0)", "narrow"))
    assert.equal(four, core.compute("FP(6,9,0)", "fp16", "narrow"))
    assert.equal("f32", core.compute("FP(5,16,0)", "FP(4,3,4)", "narrow"))
    assert.equal("f32", core.compute("fp32", "FP(4,3,4)", "narrow"))
    assert.equal("f32", core.compute("FP(4,3,4)", "FP(4,3,4)", "f32"))
  end)

  it("does not split numbers for a convolution in groups unless it is told to: that is no faster, not even on AMX", function()
    assert.equal("f32", core.compute("FP(6,9,0)", "FP(4,3,4)", "auto", nil, 2))
    assert.equal(has_bf16 and "2xbf16" or "f32", core.compute("FP(6,9,0)", "FP(4,3,4)", "narrow", nil, 2))
    assert.equal(narrow, core.compute("FP(4,3,4)", "FP(4,3,4)", "auto", nil, 2))
    assert.has_error(function() core.compute("FP(4,3,4)", "FP(4,3,4)", "auto", nil, 0) end)
  end)

  it("keeps to binary32 where units that take subnormals for zero would lose something", function()
    assert.equal("f32", core.compute("FP(4,3,120)", "FP(4,3,0)")) -- values below 2^-126
    assert.equal("f32", core.compute("FP(4,3,60)", "FP(4,3,60)")) -- products below 2^-126
    assert.equal("f32", core.compute("bf16", "bf16"))
  end)
end)

describe("compute.passes", function()
  it("asks for the operator's groups", function()
    local g = core.graph()
    local x = g:add("conv2d", "depthwise", { g:input { 4, 2, 2 } }, { out = 4, groups = 4 })
    x = g:add("conv2d", "conv", { x }, { out = 5 })
    g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { g:add("mean", "mean", { x }) }) })
    local graph = precision.plan(precision.uniform_low(), g, 2).graph
    local asked, answer = {}, core.compute
    finally(function() core.compute = answer end)
    core.compute = function(a, b, setting, device, groups)
      asked[#asked + 1] = groups
      return answer(a, b, setting, device, groups)
    end
    compute.passes(graph:operator "depthwise", "auto")
    compute.passes(graph:operator "conv", "auto")
    assert.same({ 4, 4, 4, 1, 1, 1 }, asked)
  end)

  it("knows that a sum of gradients is in binary32, and that slices which share out a value make no sum", function()
    local function passes(first, second)
      local g = core.graph()
      local x = g:add("conv2d", "conv", { g:input { 4, 2, 2 } }, { out = 4 })
      local parts = {}
      for i, part in ipairs { first, second } do
        parts[i] = g:add("slice", "slice" .. i, { x }, { first = part[1], count = part[2] })
      end
      local y = g:add("mean", "mean", { g:add("concat", "concat", parts) })
      g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { y }) })
      local op = precision.plan(precision.uniform_low(), g, 2).graph:operator "conv"
      return { compute.passes(op, "auto") }
    end
    local narrow = has_bf16 and "bf16" or "f32"
    assert.same({ narrow, narrow, narrow }, passes({ 1, 3 }, { 0, 1 }))
    assert.same({ narrow, "f32", "f32" }, passes({ 0, 2 }, { 1, 2 })) -- one overlaps, the last channel is left out
    assert.same({ narrow, "f32", "f32" }, passes({ 0, 4 }, { 0, 4 }))
  end)
end)

--- A strided 3x3 convolution, in groups or not, and a linear layer; inputs and parameters in the given formats, everything
-- they make in fp32.
local function compile(setting, values, weights, formats)
  formats = formats or { v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,4)" }
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { 16, 8, 8 } },
    { out = 24, kernel = 3, padding = 1, stride = 2, groups = formats.groups or 1, bias = true })
  x = g:add("relu", "relu", { x }) -- brings the convolution's output back to a narrow format
  x = g:add("linear", "linear", { g:view(x, { 24 * 16 }) }, { out = 5 })
  g:add("nll_loss", "loss", { x })
  local a = core.assignment(g, 4, net.fp32)
  for op = 0, 3 do
    for _, role in ipairs { "v", "dv", "theta" } do
      if a:get(op, role) then a:set(op, role, formats[role]) end
    end
  end
  for _, op in ipairs { 1, 3 } do a:set(op, "v", "fp32") end
  for _, op in ipairs { 0, 2 } do a:set(op, "dv", "fp32") end
  local model = core.model(g)
  for _, name in ipairs { "conv.weight", "conv.bias", "linear.weight", "linear.bias" } do
    local t = model:tensor(name)
    for i = 1, t:numel() do t:set(i, weights(i)) end
  end
  local program = core.program(model, a, { keep_all = true, input_gradient = true, compute = setting })
  local images = core.tensor { 4, 8, 8, 16 }
  for i = 1, images:numel() do images:set(i, values(i)) end
  program:forward(images, { 0, 1, 2, 3 })
  program:backward(4)
  return {
    conv = program:read(1), linear = program:read(3), dx = program:read(0, "gradient"), drelu = program:read(2, "gradient"),
    dconv = model:grad "conv.weight", dconv_bias = model:grad "conv.bias", dlinear = model:grad "linear.weight",
    dlinear_bias = model:grad "linear.bias",
  }
end

describe("a program", function()
  local function small(i) return (i * 7 + i // 5) % 9 - 4 end
  -- Of 10 significant bits, so that both parts count; their products with each other have 20, and few enough are added.
  local function wider(i) return (i % 4 == 0) and ((i * 37 + i // 3) % 1023 - 511) or 0 end

  it("gets the same bits from either type where sums are exact", function()
    local f32, auto = compile("f32", small, small), compile("auto", small, small)
    for name, tensor in pairs(f32) do assert.equal(tensor:tostring(), auto[name]:tostring(), name) end
  end)

  local mixes = {
    { "input", v = "FP(6,9,0)", dv = "FP(5,2,0)", theta = "FP(4,3,4)" },
    { "parameters", v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(6,9,0)" },
    { "gradients", v = "FP(4,3,4)", dv = "FP(6,9,0)", theta = "FP(4,3,4)" },
    { "everything", v = "FP(6,9,0)", dv = "FP(6,9,0)", theta = "FP(6,9,0)" },
    { "everything, in groups", v = "FP(6,9,0)", dv = "FP(6,9,0)", theta = "FP(6,9,0)", groups = 2 },
  }
  for _, formats in ipairs(mixes) do
    it("gets the same bits from numbers split in two: " .. formats[1], function()
      local values = formats.v == "FP(6,9,0)" and wider or small
      local f32 = compile("f32", values, small, formats)
      local narrow = compile("narrow", values, small, formats)
      for _, name in ipairs { "conv", "dconv_bias", "dlinear_bias" } do
        assert.equal(f32[name]:tostring(), narrow[name]:tostring(), name)
      end
    end)

    it("gets the same products of any values split in two, but for the order of sums: " .. formats[1], function()
      local numbers = net.numbers(20000, 11)
      local function any(i) return numbers[i] end
      local f32, narrow = compile("f32", any, any, formats), compile("narrow", any, any, formats)
      for name, tensor in pairs(f32) do
        local x, y = tensor:totable(), narrow[name]:totable()
        -- a lost lower part would be an error of 2^-9
        for i = 1, #x do assert.near(x[i], y[i], 2e-5) end
      end
    end)
  end

  it("gets the same products of any values: results differ by the order of sums only", function()
    local numbers = net.numbers(20000, 11)
    local function any(i) return numbers[i] end
    local f32, auto = compile("f32", any, any), compile("auto", any, any)
    for name, tensor in pairs(f32) do
      local x, y = tensor:totable(), auto[name]:totable()
      for i = 1, #x do assert.near(x[i], y[i], 2e-5) end -- at most 1024 products below 2, in binary32
    end
  end)

  -- A sum of n products in binary32, in any order, is off by less than n 2^-24 times the sum of their magnitudes (and of one more
  -- rounding each, where products are not exact).
  for _, setting in ipairs { "f32", "auto", "narrow" } do
    it("is within the bound of binary32 sums from binary64's, in " .. setting, function()
      local features, classes, batch = 300, 7, 5
      for _, formats in ipairs { { "FP(4,3,4)", "FP(4,3,4)" }, { "FP(6,9,0)", "FP(4,3,4)" }, { "FP(6,9,0)", "FP(6,9,0)" } } do
        local g = core.graph()
        g:add("nll_loss", "loss", { g:add("linear", "linear", { g:input { features } }, { out = classes, bias = false }) })
        local a = core.assignment(g, batch, net.fp32)
        a:set(0, "v", formats[1])
        a:set(1, "theta", formats[2])
        local model = core.model(g)
        local program = core.program(model, a, { keep_all = true, compute = setting })
        local images = core.tensor({ batch, features }, net.numbers(batch * features, 3))
        model:tensor("linear.weight"):copy(core.tensor({ classes, features }, net.numbers(classes * features, 4)))
        program:forward(images, { 0, 1, 2, 3, 4 })
        local x = core.round(images, formats[1]):totable()
        local w = core.round(model:tensor "linear.weight", formats[2]):totable()
        local y = program:read(1):totable()
        for i = 0, batch - 1 do
          for k = 0, classes - 1 do
            local sum, magnitude = 0.0, 0.0
            for j = 1, features do
              local product = x[i * features + j] * w[k * features + j]
              sum, magnitude = sum + product, magnitude + math.abs(product)
            end
            assert.near(sum, y[i * classes + k + 1], (features + 1) * 2 ^ -24 * magnitude)
          end
        end
      end
    end)
  end

  it("refuses an unknown compute type", function()
    assert.has_error(function() compile("fp4", math.abs, math.abs) end, "compute: fp4, accepted are auto, f32, narrow, fp8, tf32")
  end)
end)
