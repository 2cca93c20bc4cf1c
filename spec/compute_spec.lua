-- Exact narrow compute: where bf16 units multiply, the products are those of binary32.
local core = require "mptl.core"
local compute = require "mptl.compute"
local net = require "support.network"
local precision = require "mptl.precision"
local units = require "support.units"

local settings = { "f32", "auto", "narrow" }
if core.backends()[1].version ~= "none" then settings[#settings + 1] = "onednn" end

-- Formats of two operands, the setting and the convolution's groups; then what they are multiplied in without bf16 units, with
-- AVX512-BF16 (twice as fast as binary32), and with AMX (eight times as fast, so that two and four products for one pay).
local choices = {
  { "FP(4,3,4)", "FP(5,2,0)", "auto", 1, none = "f32", bf16 = "bf16", amx = "bf16" },
  { "FP(5,7,0)", "fp8_e4m3fn", "auto", 1, none = "f32", bf16 = "bf16", amx = "bf16" },
  { "FP(5,8,0)", "FP(4,3,4)", "auto", 1, none = "f32", bf16 = "f32", amx = "2xbf16" },
  { "FP(4,3,4)", "FP(6,9,0)", "auto", 1, none = "f32", bf16 = "f32", amx = "2xbf16" },
  { "FP(6,9,0)", "FP(6,9,0)", "auto", 1, none = "f32", bf16 = "f32", amx = "4xbf16" },
  { "fp32", "FP(4,3,4)", "auto", 1, none = "f32", bf16 = "f32", amx = "f32" },
  -- as wide as two numbers of bf16 hold, and one bit wider
  { "FP(4,3,4)", "FP(5,2,0)", "narrow", 1, none = "f32", bf16 = "bf16", amx = "bf16" },
  { "FP(6,9,0)", "FP(4,3,4)", "narrow", 1, none = "f32", bf16 = "2xbf16", amx = "2xbf16" },
  { "FP(4,3,4)", "FP(5,15,0)", "narrow", 1, none = "f32", bf16 = "2xbf16", amx = "2xbf16" },
  { "FP(6,9,0)", "fp16", "narrow", 1, none = "f32", bf16 = "4xbf16", amx = "4xbf16" },
  { "FP(5,16,0)", "FP(4,3,4)", "narrow", 1, none = "f32", bf16 = "f32", amx = "f32" },
  { "fp32", "FP(4,3,4)", "narrow", 1, none = "f32", bf16 = "f32", amx = "f32" },
  { "FP(4,3,4)", "FP(4,3,4)", "f32", 1, none = "f32", bf16 = "f32", amx = "f32" },
  -- groups of channels are multiplied in binary32
  { "FP(4,3,4)", "FP(4,3,4)", "auto", 2, none = "f32", bf16 = "f32", amx = "f32" },
  { "FP(4,3,4)", "FP(4,3,4)", "narrow", 2, none = "f32", bf16 = "f32", amx = "f32" },
}

describe("core.compute", function()
  after_each(function() core.isa "auto" end)

  for _, isa in ipairs(units.isas()) do
    it("takes bf16 units, and splits numbers in two, where that is exact and pays: with " .. isa, function()
      core.isa(isa)
      for _, c in ipairs(choices) do
        assert.equal(c[units.units(isa)], core.compute(c[1], c[2], c[3], nil, c[4]),
          ("%s by %s, %s, %d groups"):format(table.unpack(c, 1, 4)))
      end
    end)
  end

  it("computes products with few parameters in binary32, where that is faster", function()
    for _, c in ipairs { { "FP(4,3,4)", 1 }, { "FP(6,9,0)", 2 } } do
      local format, products = table.unpack(c)
      local many = core.compute(format, "FP(4,3,4)", "auto")
      assert.equal(many, core.compute(format, "FP(4,3,4)", "auto", nil, 1, 256 * products))
      assert.equal("f32", core.compute(format, "FP(4,3,4)", "auto", nil, 1, 256 * products - 1))
      local narrow = core.compute(format, "FP(4,3,4)", "narrow")
      assert.equal(narrow, core.compute(format, "FP(4,3,4)", "narrow", nil, 1, 1))
    end
    assert.has_error(function() core.compute("FP(4,3,4)", "FP(4,3,4)", "auto", nil, 1, -1) end)
  end)

  it("refuses no groups", function()
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
    core.compute = function(a, b, setting, device, groups, ...)
      asked[#asked + 1] = groups
      return answer(a, b, setting, device, groups, ...)
    end
    compute.passes(graph:operator "depthwise", "auto")
    compute.passes(graph:operator "conv", "auto")
    assert.same({ 4, 4, 4, 1, 1, 1 }, asked)
  end)

  it("knows that a sum of gradients is in binary32, and that slices which share out a value make no sum", function()
    local function passes(first, second)
      local g = core.graph()
      local x = g:add("conv2d", "conv", { g:input { 64, 2, 2 } }, { out = 4 })
      local parts = {}
      for i, part in ipairs { first, second } do
        parts[i] = g:add("slice", "slice" .. i, { x }, { first = part[1], count = part[2] })
      end
      local y = g:add("mean", "mean", { g:add("concat", "concat", parts) })
      g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { y }) })
      local op = precision.plan(precision.uniform_low(), g, 2).graph:operator "conv"
      return { compute.passes(op, "auto") }
    end
    local narrow = units.units() == "none" and "f32" or "bf16"
    assert.same({ narrow, narrow, narrow }, passes({ 1, 3 }, { 0, 1 }))
    assert.same({ narrow, "f32", "f32" }, passes({ 0, 2 }, { 1, 2 })) -- one overlaps, the last channel is left out
    assert.same({ narrow, "f32", "f32" }, passes({ 0, 4 }, { 0, 4 }))
  end)
end)

--- A strided 3x3 convolution, in groups or not, and a linear layer; inputs and parameters in the given formats, everything
-- they make in fp32. The gradients of the linear layer's outputs are 0 and 1, or those of a softmax, any numbers.
local function compile(setting, values, weights, formats, softmax)
  formats = formats or { v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,4)" }
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { 16, 8, 8 } },
    { out = 24, kernel = 3, padding = 1, stride = 2, groups = formats.groups or 1, bias = true })
  x = g:add("relu", "relu", { x }) -- brings the convolution's output back to a narrow format
  x = g:add("linear", "linear", { g:flatten(x) }, { out = 5 })
  if softmax then x = g:add("log_softmax", "log_softmax", { x }) end
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
  }, {
    conv = {
      height = 8, channels = 16, out = 24, kernel = 3, padding = 1, stride = 2, groups = formats.groups or 1,
      x = program:read(0), dy = program:read(1, "gradient"), w = core.round(model:tensor "conv.weight", formats.theta),
      bias = core.round(model:tensor "conv.bias", formats.theta), formats = formats,
    },
    linear = { -- as a convolution whose kernel is the image
      height = 4, channels = 24, out = 5, kernel = 4, padding = 0, stride = 1, groups = 1,
      x = program:read(2), dy = program:read(3, "gradient"), w = core.round(model:tensor "linear.weight", formats.theta),
      bias = core.round(model:tensor "linear.bias", formats.theta), formats = formats,
    },
  }
end

--- Sums of a list's elements, and of their magnitudes.
local function sums(n)
  local s = { value = {}, size = {} }
  for i = 1, n do s.value[i], s.size[i] = 0.0, 0.0 end
  return s
end

local function add(s, at, product)
  s.value[at], s.size[at] = s.value[at] + product, s.size[at] + math.abs(product)
end

--- The three passes of a layer for four square images, summed in binary64 from the program's own operands.
-- @return sums: of the output, of the gradients of the input and of the weights
local function passes_of(l)
  local x, w, dy, bias = l.x:totable(), l.w:totable(), l.dy:totable(), l.bias:totable()
  local size, per, outs = (l.height + 2 * l.padding - l.kernel) // l.stride + 1, l.channels // l.groups, l.out // l.groups
  local y, dx, dw = sums(4 * size * size * l.out), sums(#x), sums(#w)
  for image = 0, 3 do
    for at = 0, size * size * l.out - 1 do
      local o, column, row = at % l.out, at // l.out % size, at // l.out // size
      local to = image * size * size * l.out + at + 1
      add(y, to, bias[o + 1])
      for kh = 0, l.kernel - 1 do
        local h = row * l.stride - l.padding + kh
        for kw = 0, l.kernel - 1 do
          local v = column * l.stride - l.padding + kw
          if h >= 0 and h < l.height and v >= 0 and v < l.height then
            local from = ((image * l.height + h) * l.height + v) * l.channels + o // outs * per + 1
            for c = 0, per - 1 do
              local weight = ((o * per + c) * l.kernel + kh) * l.kernel + kw + 1
              add(y, to, x[from + c] * w[weight])
              add(dx, from + c, dy[to] * w[weight])
              add(dw, weight, x[from + c] * dy[to])
            end
          end
        end
      end
    end
  end
  return y, dx, dw
end

--- Fails where one of a program's results is not the sum of the products of its operands, to what binary32 sums may be off in any
-- order: each addition by 2^-24 of the sum of the magnitudes (twice that, for units that do not round to nearest). Parts of
-- numbers make for two or four times as many terms. A lost lower part would be off by 2^-9 of each term.
local function assert_passes(setting, results, layers)
  local function assert_pass(got, want, name, terms, a, b)
    local products = tonumber((core.compute(a, b, setting, nil, layers.conv.groups):match "^(%d)xbf16") or 1)
    got = got:totable()
    assert.equal(#want.value, #got, name)
    for i = 1, #got do
      local most = (products * terms + 2) * 2 ^ -23 * want.size[i]
      if not (math.abs(got[i] - want.value[i]) <= most) then
        error(("%s in %s: element %d is %.9g, expected %.9g to %.2g"):format(name, setting, i, got[i], want.value[i], most), 2)
      end
    end
  end
  for name, names in pairs { conv = { "conv", "dx", "dconv" }, linear = { "linear", "drelu", "dlinear" } } do
    local l = layers[name]
    local y, dx, dw = passes_of(l)
    local area = l.kernel * l.kernel
    assert_pass(results[names[1]], y, names[1], l.channels // l.groups * area + 1, l.formats.v, l.formats.theta)
    assert_pass(results[names[2]], dx, names[2], l.out // l.groups * area, l.formats.dv, l.formats.theta)
    assert_pass(results[names[3]], dw, names[3], l.dy:numel() // l.out, l.formats.v, l.formats.dv)
  end
end

for _, isa in ipairs(units.isas()) do describe("a program with " .. isa, function()
  before_each(function() core.isa(isa) end)
  after_each(function() core.isa "auto" end)
  local function small(i) return (i * 7 + i // 5) % 9 - 4 end
  -- Of 10 significant bits, so that both parts count; their products with each other have 20, and few enough are added.
  local function wider(i) return (i % 4 == 0) and ((i * 37 + i // 3) % 1023 - 511) or 0 end
  local numbers = net.numbers(20000, 11)
  local function any(i) return numbers[i] end

  it("gets the same bits from either type where sums are exact", function()
    local f32, auto = compile("f32", small, small), compile("auto", small, small)
    for name, tensor in pairs(f32) do assert.is_true(tensor:tostring() == auto[name]:tostring(), name) end
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
        assert.is_true(f32[name]:tostring() == narrow[name]:tostring(), name)
      end
    end)

    it("sums the products of any values split in two: " .. formats[1], function()
      for _, setting in ipairs(settings) do
        assert_passes(setting, compile(setting, any, any, formats, true))
      end
    end)
  end

  it("sums the products of any values", function()
    for _, setting in ipairs(settings) do assert_passes(setting, compile(setting, any, any, nil, true)) end
  end)

  -- A sum of n products in binary32, in any order, is off by less than n 2^-24 times the sum of their magnitudes (and of one more
  -- rounding each, where products are not exact).
  for _, setting in ipairs(settings) do
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
    assert.has_error(function() compile("fp4", math.abs, math.abs) end,
      "compute: fp4, accepted are auto, f32, narrow, fp8, tf32, onednn")
  end)
end) end
