-- Every operator, forward and gradients, against PyTorch's numbers (spec/fixtures), in binary32.
local core = require "mptl.core"
local isas = require "support.isas"
local net = require "support.network"
local random = require "support.random"

local TOLERANCE = 2e-6 -- of the largest element; sums have up to a few hundred terms

--- Runs one operator under the cotangent of a fixture's case.
-- build(graph, input) returns the operator's value; parameters is a list of {name in the model, name in the case}.
local function run(case, build, parameters, options)
  local images, shape = net.images(case.x)
  local n = case.x.dims[1]
  local graph = core.graph()
  local y = build(graph, graph:input(shape))
  local operator = #graph:operators() - 1
  local set_head, labels = net.cotangent_head(graph, y, n, case.dy.data)
  local model = core.model(graph)
  set_head(model)
  for _, p in ipairs(parameters) do model:tensor(p[1]):copy(core.tensor({ net.product(case[p[2]].dims) }, case[p[2]].data)) end
  local train = not (options and options.eval)
  local program = core.program(model, core.assignment(graph, n, net.fp32),
    { batch = n, train = train, input_gradient = train, keep_all = true })
  program:forward(images, labels)
  net.assert_close(case.y.data, net.values(program:read(operator)), TOLERANCE, "y")
  if train then
    assert.is_true(program:backward(n))
    net.assert_close(case.dx.data, net.values(program:read(0, "gradient")), TOLERANCE, "dx")
    for _, p in ipairs(parameters) do
      if case["d" .. p[2]] then
        net.assert_close(case["d" .. p[2]].data, model:grad(p[1]):totable(), TOLERANCE, "d" .. p[2])
      end
    end
  end
  return model
end

local function each_case(name, fn)
  for i, case in ipairs(require("fixtures." .. name)) do
    it("equals PyTorch: " .. (case.name or i), function() fn(case) end)
  end
end

describe("operator", function()
  describe("conv2d", function()
    each_case("conv2d", function(case)
      local w = case.weight.dims
      run(case, function(g, x)
        return g:add("conv2d", "op", { x },
          { out = w[1], kernel = { w[3], w[4] }, stride = case.stride, padding = case.padding, groups = case.groups or 1,
            bias = case.bias ~= nil })
      end, { { "op.weight", "weight" }, case.bias and { "op.bias", "bias" } or nil })
    end)
  end)

  describe("linear", function()
    each_case("linear", function(case)
      run(case, function(g, x)
        if #case.x.dims == 4 then x = g:flatten(x) end
        return g:add("linear", "op", { x }, { out = case.weight.dims[1], bias = case.bias ~= nil })
      end, { { "op.weight", "weight" }, case.bias and { "op.bias", "bias" } or nil })
    end)
  end)

  describe("batchnorm2d", function()
    each_case("batchnorm2d", function(case)
      local model = run(case, function(g, x)
        return g:add("batchnorm2d", "op", { x }, { eps = case.eps, momentum = case.momentum })
      end, { { "op.weight", "weight" }, { "op.bias", "bias" }, { "op.running_mean", "running_mean" },
        { "op.running_var", "running_var" } }, { eval = not case.training })
      for _, name in ipairs { "running_mean", "running_var" } do
        local after = case[name .. "_after"] or case[name]
        net.assert_close(after.data, model:tensor("op." .. name):totable(), TOLERANCE, name)
      end
    end)

    it("keeps its accuracy when the mean is much larger than the deviation", function()
      local g = core.graph()
      local x = g:input { 1, 16, 16 }
      local y = g:add("batchnorm2d", "bn", { x }, {})
      local set_head, labels = net.cotangent_head(g, y, 2, net.numbers(512, 3))
      local model = core.model(g)
      set_head(model)
      local values = {}
      for i = 1, 512 do values[i] = 4096 + (i % 2) end -- deviation 1/2: normalised to -1 and 1
      local program = core.program(model, core.assignment(g, 2, net.fp32), { keep_all = true })
      program:forward(core.tensor({ 2, 16, 16, 1 }, values), labels)
      local out = program:read(1):totable()
      assert.near(1, out[1], 1e-4)
      assert.near(-1, out[2], 1e-4)
    end)

    it("refuses statistics of a single value", function()
      local g = core.graph()
      local y = g:add("batchnorm2d", "bn", { g:input { 4, 1, 1 } }, {})
      net.cotangent_head(g, y, 1, { 1, 1, 1, 1 })
      local model = core.model(g)
      local function program(options) return core.program(model, core.assignment(g, 2, net.fp32), options) end
      local message = "bn (batchnorm2d): batch 1: it normalises one value per channel, accepted are batches of at least 2"
      assert.has_error(function() program { batch = 1 } end, message)
      assert.has_error(function() core.predict_memory(core.assignment(g, 1, net.fp32), {}) end, message)
      program { batch = 2 }
      program { batch = 1, train = false }
    end)
  end)

  describe("layernorm", function()
    each_case("layernorm", function(case)
      run(case, function(g, x) return g:add("layernorm", "op", { x }, { eps = case.eps, bias = case.bias ~= nil }) end,
        { { "op.weight", "weight" }, case.bias and { "op.bias", "bias" } or nil })
    end)

    it("keeps its accuracy when the mean is large beside the deviation", function()
      local g = core.graph()
      local _, labels = net.cotangent_head(g, g:add("layernorm", "op", { g:input { 100 } }), 1, net.numbers(100, 3))
      local program = core.program(core.model(g), core.assignment(g, 1, net.fp32), { keep_all = true })
      local values = {}
      for i = 1, 100 do values[i] = 2 ^ 23 + (i % 2) end -- deviation 1/2: normalised to -1 and 1
      program:forward(core.tensor({ 1, 100 }, values), labels)
      local out = program:read(1):totable()
      assert.near(1, out[1], 1e-4)
      assert.near(-1, out[2], 1e-4)
    end)

    it("begins with weights of 1 and biases of 0, and trains with one sample", function()
      local g = core.graph()
      g:add("nll_loss", "loss", { g:add("layernorm", "op", { g:input { 3 } }) })
      local model = core.model(g)
      assert.same({ { 1, 1, 1 }, { 0, 0, 0 } }, { model:tensor("op.weight"):totable(), model:tensor("op.bias"):totable() })
      local program = core.program(model, core.assignment(g, 1, net.fp32))
      assert.is_true(program:step(core.tensor({ 1, 3 }, { 1, 2, 4 }), { 2 }, { lr = 0.1, loss_scale = 1 }).applied)
    end)

    it("refuses a flattened image, whose features are in memory pixel by pixel", function()
      local g = core.graph()
      local x = g:input { 4, 2, 2 }
      assert.has_error(function() g:add("layernorm", "op", { g:flatten(x) }) end,
        "op (layernorm): input 0 is a flattened image: flatten it later")
      local pixel = g:add("mean", "mean", { x })
      assert.same({ 4 }, g:shape(g:add("layernorm", "flat", { pixel })))
      local one = g:add("avgpool", "pool", { x }, { kernel = 2 }) -- of one pixel: its channels are its features
      assert.same({ 4 }, g:shape(g:add("layernorm", "op", { g:flatten(one) })))
    end)

    -- Loss, output, gradients and statistics as text.
    local function results(input, n)
      local g = core.graph()
      local x = g:add("layernorm", "op", { g:input(input) })
      if #input == 3 then x = g:add("mean", "mean", { x }) end
      g:add("nll_loss", "loss", { x })
      local model, numel = core.model(g), net.product(input)
      for i, name in ipairs { "op.weight", "op.bias" } do
        model:tensor(name):copy(core.tensor({ input[1] }, net.numbers(input[1], i)))
      end
      local formats = { low = net.hfp8.low, high = net.hfp8.low }
      local program = core.program(model, core.assignment(g, n, formats),
        { input_gradient = true, rounding = "stochastic", seed = 3, keep_all = true })
      local labels = {}
      for i = 1, n do labels[i] = i * 7 % input[1] end
      program:forward(core.tensor({ n * numel }, net.numbers(n * numel, 5)), labels, 1)
      program:backward(1024 * n)
      local list = { program:read(1):tostring(), program:read(0, "gradient"):tostring() }
      for _, name in ipairs { "op.weight", "op.bias" } do list[#list + 1] = model:grad(name):tostring() end
      for _, s in ipairs(program:stats()) do
        list[#list + 1] = ("%d %s %d %d %d %a"):format(s.operator, s.role, s.elements, s.underflow, s.overflow, s.max_abs)
      end
      return table.concat(list, "\n")
    end

    for _, case in ipairs { { { 5 }, 30 }, { { 70 }, 9 }, { { 6, 8, 8 }, 17 } } do
      local input, n = table.unpack(case)
      it(("has the same bits with any number of threads: %d samples of %s"):format(n, table.concat(input, "x")), function()
        local threads = core.threads()
        finally(function() core.set_threads(threads) end)
        core.set_threads(1)
        local want = results(input, n)
        for _, count in ipairs { 2, 3, 8 } do
          core.set_threads(count)
          assert.is_true(want == results(input, n), count .. " threads")
        end
      end)

      it(("has the same bits with every instruction set: %d samples of %s"):format(n, table.concat(input, "x")), function()
        finally(function() core.isa "auto" end)
        local want = results(input, n)
        for _, isa in ipairs(isas) do
          core.isa(isa)
          assert.is_true(want == results(input, n), isa)
        end
      end)
    end
  end)

  for _, kind in ipairs { "relu", "relu6", "sigmoid", "gelu", "gelu_tanh", "mean", "log_softmax" } do
    describe(kind, function()
      each_case(kind, function(case)
        run(case, function(g, x) return g:add(kind, "op", { x }) end, {})
      end)
    end)
  end

  it("on a flattened image keeps the order of its features", function()
    local values = net.numbers(2 * 3 * 2 * 2, 8)
    local function output(first_flatten)
      local g = core.graph()
      local x = g:input { 3, 2, 2 }
      if first_flatten then x = g:flatten(x) end
      x = g:add("relu", "relu", { x })
      if not first_flatten then x = g:flatten(x) end
      assert.same({ 12 }, g:shape(x))
      g:add("nll_loss", "loss", { g:add("linear", "linear", { x }, { out = 4 }) })
      local model = core.model(g, { seed = 5 })
      local program = core.program(model, core.assignment(g, 2, net.fp32), { input_gradient = true })
      program:forward(core.tensor({ 2, 2, 2, 3 }, values), { 1, 3 })
      program:backward(1)
      return program:read(2):tostring() .. model:grad("linear.weight"):tostring() .. program:read(0, "gradient"):tostring()
    end
    assert.equal(output(false), output(true))

    local g = core.graph()
    local x = g:flatten(g:input { 3, 2, 2 })
    local y = g:add("linear", "linear", { x }, { out = 12 })
    assert.has_error(function() g:add("add", "add", { x, y }) end,
      "add (add): input 1 and input 0 are not flattened from one shape: their features are in different orders")
  end)

  for _, kinds in ipairs { { "log_softmax", "nll_loss" }, { "nll_loss" }, { "log_softmax", "relu", "nll_loss" },
    { "log_softmax", "linear", "nll_loss" } } do
    it(table.concat(kinds, ", ") .. " on a flattened image take its features in PyTorch's order", function()
      local n, c, area = 300, 3, 4
      local values, labels = net.numbers(n * c * area, 8), {}
      for i = 1, n do labels[i] = (i * 5) % (c * area) end
      -- The same numbers as images, flattened, and as flat values.
      local function losses(images, input)
        local g = core.graph()
        local x = g:input(input)
        if #input > 1 then x = g:flatten(x) end
        for _, kind in ipairs(kinds) do x = g:add(kind, kind, { x }, kind == "linear" and { out = c * area } or {}) end
        local model = core.model(g, { seed = 5 })
        local program = core.program(model, core.assignment(g, n, net.fp32), { input_gradient = true })
        local result = program:forward(images, labels)
        program:backward(n)
        return result, program:read(#kinds):totable(), program:read(0, "gradient"):totable()
      end
      local flat = table.pack(losses(core.tensor({ n, c * area }, values), { c * area }))
      local image = table.pack(losses(core.tensor({ n, 2, 2, c }, net.nhwc(values, n, c, 2, 2)), { c, 2, 2 }))
      assert.near(flat[1].loss, image[1].loss, 1e-6 * math.abs(flat[1].loss))
      assert.equal(flat[1].correct, image[1].correct)
      net.assert_close(flat[2], image[2], 1e-6, "losses")
      net.assert_close(net.nhwc(flat[3], n, c, 2, 2), image[3], 1e-6, "dx")
    end)
  end

  describe("avgpool", function()
    each_case("avgpool2d", function(case)
      run(case, function(g, x)
        return g:add("avgpool", "op", { x }, { kernel = case.kernel, stride = case.stride or case.kernel, padding = case.padding,
          count_include_pad = case.count_include_pad })
      end, {})
    end)
  end)

  describe("maxpool", function()
    each_case("maxpool2d", function(case)
      run(case, function(g, x)
        return g:add("maxpool", "op", { x }, { kernel = case.kernel, stride = case.stride, padding = case.padding })
      end, {})
    end)

    it("keeps a NaN and an image of infinities", function()
      local g = core.graph()
      local y = g:add("maxpool", "pool", { g:input { 1, 2, 4 } }, { kernel = 2, stride = 2 })
      local _, labels = net.cotangent_head(g, y, 1, { 1, 1 })
      local program = core.program(core.model(g), core.assignment(g, 1, net.fp32), { keep_all = true })
      local nan, inf = 0 / 0, math.huge
      program:forward(core.tensor({ 1, 2, 4, 1 }, { 1, nan, -inf, -inf, 2, 3, -inf, -inf }), labels)
      local out = program:read(1):totable()
      assert.not_equal(out[1], out[1])
      assert.equal(-inf, out[2])
    end)

    it("refuses padding of more than half a window", function()
      local g = core.graph()
      assert.has_error(function() g:add("maxpool", "pool", { g:input { 1, 4, 4 } }, { kernel = 3, padding = 2 }) end,
        "pool (maxpool): padding: 2, accepted is at most half of the kernel's 3")
    end)
  end)

  -- The probability that a normally distributed number is less than x.
  local function normal_less(x)
    local a, density = math.abs(x), math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    local tail
    if a < 3 then
      local term, sum = a, 0
      for n = 1, 100 do
        sum = sum + term
        term = term * a * a / (2 * n + 1)
      end
      tail = 0.5 - density * sum
    else
      local fraction = a
      for n = 200, 1, -1 do fraction = a + n / fraction end
      tail = density / fraction
    end
    return x > 0 and 1 - tail or tail
  end

  local exact = {
    sigmoid = function(x) return 1 / (1 + math.exp(-x)) end,
    gelu = function(x) return x * normal_less(x) end,
    gelu_tanh = function(x) return x / (1 + math.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x ^ 3))) end,
  }

  -- The output of an operator for a list of numbers and the gradient of each, for a gradient of the output of ones.
  local function both(kind, values)
    local g, ones = core.graph(), {}
    for i = 1, #values do ones[i] = 1 end
    local y = g:add(kind, "op", { g:input { 1, 1, #values } })
    local set_head, labels = net.cotangent_head(g, y, 1, ones)
    local model = core.model(g)
    set_head(model)
    local program = core.program(model, core.assignment(g, 1, net.fp32), { input_gradient = true, keep_all = true })
    program:forward(core.tensor({ 1, 1, #values, 1 }, values), labels)
    program:backward(1)
    return program:read(1), program:read(0, "gradient")
  end

  describe("of exp:", function()
    local values = { 0, -0.0, 1e-30, -1e-30, 14.2, -14.2, 14.3, -14.3, 88.8, -88.8, 103, -103, 104, -104, 110, -110, 1e30, -1e30 }
    for _, v in ipairs(net.numbers(1000 - #values, 4)) do values[#values + 1] = 20 * v end

    for kind, f in pairs(exact) do
      it(kind .. " is within 0.51 units of the last place, and the same bits with every instruction set", function()
        local x, bits = core.tensor({ 1000 }, values), nil
        finally(function() core.isa "auto" end)
        for _, isa in ipairs(isas) do
          core.isa(isa)
          local out, gradient = both(kind, values)
          bits = bits or out:tostring() .. gradient:tostring()
          assert.equal(bits, out:tostring() .. gradient:tostring(), isa)
          for i, got in ipairs(out:totable()) do
            local want = f(x:get(i))
            local unit = math.max(2.0 ^ (math.floor(math.log(math.abs(want), 2)) - 23), 2.0 ^ -149)
            assert.near(want, got, 0.51 * unit, ("of %g"):format(x:get(i)))
          end
        end
      end)
    end
  end)

  for _, kind in ipairs { "gelu", "gelu_tanh" } do
    describe(kind, function()
      it("has PyTorch's special values, with every instruction set", function()
        local inf, nan, most = math.huge, 0 / 0, 0x1.fffffep+127
        finally(function() core.isa "auto" end)
        for _, isa in ipairs(isas) do
          core.isa(isa)
          local out, gradient = both(kind, { inf, -inf, nan, most, -most, -0.0, -100 })
          local y, dx = out:totable(), gradient:totable()
          assert.same({ inf, most }, { y[1], y[4] })
          for _, i in ipairs { 2, 3 } do assert.not_equal(y[i], y[i]) end
          for _, i in ipairs { 5, 6, 7 } do assert.equal(-inf, 1 / y[i]) end -- -0
          for i = 1, 3 do assert.not_equal(dx[i], dx[i]) end
          assert.same({ 1, 0, 0.5, 0 }, { dx[4], dx[5], dx[6], dx[7] })
        end
      end)
    end)
  end

  describe("sigmoid", function()
    it("ends at 0 and 1", function()
      assert.same({ 0, 1 }, both("sigmoid", { -math.huge, math.huge }):totable())
    end)

    it("keeps a NaN", function()
      local g = core.graph()
      g:add("nll_loss", "loss", { g:add("sigmoid", "op", { g:input { 2 } }) })
      local program = core.program(core.model(g), core.assignment(g, 1, net.fp32), { keep_all = true })
      program:forward(core.tensor({ 1, 2 }, { 0 / 0, 0 }), { 1 })
      local out = program:read(1):totable()
      assert.not_equal(out[1], out[1])
      assert.equal(0.5, out[2])
    end)
  end)

  describe("concat of slices", function()
    each_case("concat", function(case)
      run(case, function(g, x)
        local parts = {}
        for i, first in ipairs(case.firsts) do
          parts[i] = g:add("slice", "slice" .. i, { x }, { first = first, count = case.counts[i] })
        end
        return g:add("concat", "op", parts, { shuffle = case.shuffle })
      end, {})
    end)

    it("names what does not fit", function()
      local g = core.graph()
      local x = g:input { 4, 2, 2 }
      local small = g:add("avgpool", "pool", { x }, { kernel = 2 })
      local function fails(message, ...)
        local args = table.pack(...)
        assert.has_error(function() g:add(table.unpack(args, 1, args.n)) end, message)
      end
      fails("op (concat): inputs of shapes 4x2x2 and 4x1x1, must be equal except for the channels", "concat", "op", { x, small })
      fails("op (concat): shuffle: 3 channel groups, must divide the 8 channels", "concat", "op", { x, x }, { shuffle = 3 })
      fails("op (concat): 0 inputs, takes 1 to 16", "concat", "op", {})
      fails("op (slice): count (of channels) must be given", "slice", "op", { x })
      fails("op (slice): channels 3 to 4, the input has 0 to 3", "slice", "op", { x }, { first = 3, count = 2 })
      fails("op (slice): input 0 is a flattened image: flatten it later", "slice", "op", { g:flatten(x) }, { count = 2 })
    end)
  end)

  describe("dropout", function()
    local n, p = 1000, 0.3

    -- The output and the gradient of an input of ones, for a gradient of the output of ones.
    local function drop(options, step)
      local g = core.graph()
      local ones = {}
      for i = 1, n do ones[i] = 1 end
      local x = g:input { n // 10, 2, 5 }
      local y = g:add("dropout", "drop", { x }, { p = p })
      local set_head, labels = net.cotangent_head(g, y, 1, ones)
      local model = core.model(g)
      set_head(model)
      options.keep_all, options.input_gradient = true, options.train ~= false
      local program = core.program(model, core.assignment(g, 1, net.fp32), options)
      program:forward(core.tensor({ 1, 2, 5, n // 10 }, ones), labels, step)
      if options.train == false then return program:read(1):totable() end
      program:backward(1)
      return program:read(1):totable(), program:read(0, "gradient"):totable()
    end

    it("makes elements zero with its probability, scales the others, and the gradient by the same", function()
      local y, dx = drop({ seed = 4 }, 1)
      local zeros, factor = 0, core.round(core.tensor({ 1 }, { 1 / (1 - p) }), "fp32"):get(1)
      for i = 1, n do
        assert.is_true(y[i] == 0 or y[i] == factor)
        assert.equal(y[i], dx[i])
        if y[i] == 0 then zeros = zeros + 1 end
      end
      assert.near(p * n, zeros, 4 * math.sqrt(n * p * (1 - p)))
    end)

    it("draws from the seed, the step and the element", function()
      local y = drop({ seed = 4 }, 1)
      assert.same(y, (drop({ seed = 4 }, 1)))
      assert.not_same(y, (drop({ seed = 4 }, 2)))
      assert.not_same(y, (drop({ seed = 5 }, 1)))
      assert.is_false(table.concat(y, " ", 1, n // 2) == table.concat(y, " ", n // 2 + 1))
    end)

    it("keeps the elements whose random number is at least p, with every instruction set", function()
      local operator, purpose = 1, 4 -- its place in the graph, MPTL_STREAM_DROPOUT
      finally(function() core.isa "auto" end)
      for _, isa in ipairs(isas) do
        core.isa(isa)
        for i, y in ipairs((drop({ seed = 4 }, 9))) do
          local uniform = (random.word(4, purpose << 24 | operator, 9, i - 1, 0) >> 8) / 2 ^ 24
          assert.equal(uniform >= p, y ~= 0, isa .. ", element " .. i)
        end
      end
    end)

    it("is the identity in evaluation", function()
      for _, y in ipairs(drop({ train = false }, 1)) do assert.equal(1, y) end
    end)
  end)

  -- The two inputs are halves of one image's channels, picked out by 1x1 convolutions of zeros and ones.
  local function of_two_halves(kind)
    each_case(kind, function(case)
      local d = case.a.dims
      local n, c, area = d[1], d[2], d[3] * d[4]
      local x, dx = {}, {}
      for i = 0, n - 1 do
        for _, half in ipairs { "a", "b" } do
          for k = 1, c * area do
            x[#x + 1] = case[half].data[i * c * area + k]
            dx[#dx + 1] = case["d" .. half].data[i * c * area + k]
          end
        end
      end
      local dims = { n, 2 * c, d[3], d[4] }
      local pick = { dims = { c, 2 * c, 1, 1 } }
      local function half(offset)
        local weight = { dims = pick.dims, data = {} }
        for o = 0, c - 1 do
          for i = 0, 2 * c - 1 do weight.data[#weight.data + 1] = i == o + offset and 1 or 0 end
        end
        return weight
      end
      run({ x = { dims = dims, data = x }, dx = { data = dx }, y = case.y, dy = case.dy, first = half(0), second = half(c) },
        function(g, input)
          local a = g:add("conv2d", "a", { input }, { out = c, bias = false })
          local b = g:add("conv2d", "b", { input }, { out = c, bias = false })
          return g:add(kind, "op", { a, b })
        end, { { "a.weight", "first" }, { "b.weight", "second" } })
    end)
  end

  describe("mul", function() of_two_halves "mul" end)

  describe("add", function()
    of_two_halves "add"

    it("adds both gradients when a value is added to itself", function()
      local g = core.graph()
      local x = g:input { 2, 1, 1 }
      local set_head, labels = net.cotangent_head(g, g:add("add", "sum", { x, x }), 1, { 3, -1 })
      local model = core.model(g)
      set_head(model)
      local program = core.program(model, core.assignment(g, 1, net.fp32), { input_gradient = true })
      program:forward(core.tensor({ 1, 1, 1, 2 }, { 1, 1 }), labels)
      program:backward(1)
      assert.same({ 6, -2 }, program:read(0, "gradient"):totable())
    end)
  end)

  describe("nll_loss", function()
    each_case("nll_loss", function(case)
      local images, shape = net.images(case.x)
      local n = case.x.dims[1]
      local g = core.graph()
      g:add("nll_loss", "op", { g:input(shape) })
      local program = core.program(core.model(g), core.assignment(g, n, net.fp32), { batch = n, input_gradient = true })
      local result = program:forward(images, case.labels)
      net.assert_close(case.y.data, program:read(1):totable(), 1e-7, "y")
      local sum = 0
      for _, y in ipairs(case.y.data) do sum = sum + y end
      assert.near(sum, result.loss, 1e-6 * math.abs(sum))
      program:backward(n) -- every sample's gradient is 1
      local dx = program:read(0, "gradient"):totable()
      for i = 1, n do
        for k = 1, shape[1] do
          local at = (i - 1) * shape[1] + k
          assert.equal(k - 1 == case.labels[i] and -1 or 0, dx[at])
        end
      end
    end)

    it("names the label that is out of range", function()
      local g = core.graph()
      g:add("nll_loss", "loss", { g:input { 3 } })
      local program = core.program(core.model(g), core.assignment(g, 2, net.fp32))
      assert.has_error(function() program:forward(core.tensor { 2, 3 }, { 0, 3 }) end,
        "loss (nll_loss): label of sample 1: 3, accepted are 0 to 2")
    end)
  end)
end)
