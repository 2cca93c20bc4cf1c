-- What is rounded, when, and the effects of overflow, in a training step (method.md 3).
local core = require "mptl.core"
local net = require "support.network"

local function all_low(graph, batch)
  local a = core.assignment(graph, batch, net.hfp8)
  for _, g in ipairs(a:groups()) do a:set_group(g.index, true) end
  return a
end

--- x -> two 1x1 convolutions of one weight each -> add -> head: the gradient of x is a sum of two.
local function fork(first, second, dy)
  local g = core.graph()
  local x = g:input { 1, 1, 1 }
  local a = g:add("conv2d", "a", { x }, { out = 1, bias = false })
  local b = g:add("conv2d", "b", { x }, { out = 1, bias = false })
  local set_head, labels = net.cotangent_head(g, g:add("add", "add", { a, b }), 1, { dy or 1 })
  local model = core.model(g)
  set_head(model)
  model:tensor("a.weight"):fill(first)
  model:tensor("b.weight"):fill(second)
  return g, model, labels
end

local function index_of(graph, name)
  for _, op in ipairs(graph:operators()) do
    if op.name == name then return op.index end
  end
end

local function stats_of(program, operator, role)
  for _, s in ipairs(program:stats()) do
    if s.operator == operator and s.role == role then return s end
  end
end

local one = core.tensor({ 1, 1, 1, 1 }, { 1 })

describe("a training step in low precision", function()
  it("rounds every output and gradient to its format", function()
    local g = core.graph()
    local x = g:add("conv2d", "conv", { g:input { 3, 6, 6 } }, { out = 8, kernel = 3, padding = 1 })
    x = g:add("relu", "relu", { g:add("batchnorm2d", "bn", { x }) })
    x = g:add("avgpool", "pool", { x }, { kernel = 3, stride = 3 })
    x = g:add("linear", "linear", { g:flatten(x) }, { out = 10 })
    g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { x }) })
    local a = all_low(g, 5)
    local program = core.program(core.model(g, { seed = 2 }), a, { keep_all = true, input_gradient = true })
    program:forward(core.tensor({ 5, 6, 6, 3 }, net.numbers(540, 1)), { 1, 2, 3, 4, 5 })
    program:backward(1024)
    for _, op in ipairs(g:operators()) do
      for role, which in pairs { v = "value", dv = "gradient" } do
        local values = program:read(op.index, which)
        local rounded = core.round(values, (a:get(op.index, role)))
        assert.equal(values:tostring(), rounded:tostring(), op.name .. " " .. role)
        assert.equal(5 * op.numel, stats_of(program, op.index, role).elements)
      end
    end
  end)

  it("computes with rounded parameters and keeps the masters", function()
    local g, model, labels = fork(1.0625 + 2 ^ -10, 0.5) -- rounds to 1.125 in FP(4,3,4)
    local program = core.program(model, all_low(g, 1), { keep_all = true })
    program:forward(one, labels)
    assert.equal(1.125, program:read(index_of(g, "a")):get(1))
    assert.equal(1.0625 + 2 ^ -10, model:tensor("a.weight"):get(1))
  end)

  it("can change the masters by less than the spacing of their rounded copies", function()
    local g, model, labels = fork(1, 1)
    local program = core.program(model, all_low(g, 1))
    program:step(one, labels, { lr = 2 ^ -12, weight_decay = 0 })
    assert.equal(1 - 2 ^ -12, model:tensor("a.weight"):get(1))
  end)

  -- A value, its slices (the first ones of them, if `used` says so) put together again, and the gradient of the value in all low
  -- formats.
  local function sliced(slices, used)
    local g = core.graph()
    local x = g:add("conv2d", "conv", { g:input { 2, 1, 3 } }, { out = 4, bias = false })
    local parts = {}
    for i, part in ipairs(slices) do parts[i] = g:add("slice", "slice" .. i, { x }, { first = part[1], count = part[2] }) end
    local y = #parts > 0 and g:add("concat", "concat", { table.unpack(parts, 1, used) }) or x
    local numel = 3 * g:shape(y)[1]
    local set_head, labels = net.cotangent_head(g, y, 1, net.numbers(numel, 2))
    local model = core.model(g, { seed = 3 })
    set_head(model)
    local program = core.program(model, all_low(g, 1), { keep_all = true })
    program:forward(core.tensor({ 1, 1, 3, 2 }, { 1, 2, 3, 4, 5, 6 }), labels)
    program:backward(16)
    return program:read(1, "gradient"):totable(), stats_of(program, 1, "dv").elements
  end

  it("writes each part of the gradient of a value that slices divide once", function()
    local gradient, elements = sliced { { 0, 1 }, { 1, 3 } }
    local whole = sliced {}
    assert.equal(12, elements)
    assert.same(whole, gradient)
  end)

  it("adds the gradients of slices that overlap, or leave channels out", function()
    local gradient, elements = sliced { { 0, 2 }, { 1, 2 } }
    assert.equal(24, elements)
    for pixel = 0, 2 do
      assert.equal(0, gradient[4 * pixel + 4])
      assert.not_equal(0, gradient[4 * pixel + 1])
    end
  end)

  it("gives a zero gradient to channels whose slice does not reach the loss", function()
    local gradient = sliced({ { 1, 3 }, { 0, 1 } }, 1)
    for pixel = 0, 2 do
      assert.equal(0, gradient[4 * pixel + 1])
      assert.not_equal(0, gradient[4 * pixel + 2])
    end
  end)

  it("rounds each contribution to a gradient and does not round their sum", function()
    local g, model, labels = fork(1.25, 0.0625)
    local program = core.program(model, all_low(g, 1), { input_gradient = true })
    program:forward(one, labels)
    program:backward(1)
    assert.equal(1.3125, program:read(0, "gradient"):get(1)) -- FP(5,2,0) has 1.25 and 1.5
  end)

  it("multiplies gradients by the loss scale and divides by it in the update", function()
    local g, model, labels = fork(1, 1)
    local program = core.program(model, all_low(g, 1))
    local result = program:step(one, labels, { lr = 0.5, weight_decay = 0, loss_scale = 1024 })
    assert.is_true(result.applied)
    assert.equal(1024, model:grad("a.weight"):get(1))
    assert.equal(0.5, model:tensor("a.weight"):get(1))
  end)

  -- FP(5,2,0) has no code for infinity: packed storage has the largest value instead, and skips the step nevertheless.
  for storage, overflowed in pairs { emulated = math.huge, packed = 114688 } do
    it("skips the update when a gradient overflows, in " .. storage .. " storage", function()
      local g, model, labels = fork(1, 1)
      local a = all_low(g, 1)
      local program = core.program(model, a, { storage = storage })
      local result = program:step(one, labels, { lr = 1, loss_scale = 2 ^ 20 }) -- FP(5,2,0) ends at 114688
      assert.is_false(result.applied)
      assert.equal(1, stats_of(program, index_of(g, "loss"), "dv").overflow)
      assert.equal(overflowed, model:grad("a.weight"):get(1))
      assert.equal(1, model:tensor("a.weight"):get(1))
      assert.equal(0, model:updates())
      assert.is_true(program:step(one, labels, { lr = 1, loss_scale = 2 ^ 16 }).applied)
    end)

    it("has a NaN loss and skips the update after a NaN, unless updates are always made, in " .. storage .. " storage", function()
      local g, model, labels = fork(0 / 0, 1)
      local program = core.program(model, all_low(g, 1), { storage = storage })
      local result = program:step(one, labels, { lr = 1 })
      assert.is_true(result.loss ~= result.loss)
      assert.is_false(result.applied)
      assert.equal(1, model:tensor("b.weight"):get(1))
      assert.is_true(program:step(one, labels, { lr = 1, skip_nonfinite = false }).applied)
      local head = model:tensor("head.weight"):get(1) -- its gradient was NaN, if NaN could be stored
      if storage == "emulated" then assert.is_true(head ~= head) end
    end)
  end

  it("saturates outputs, and promotes those that overflow too often", function()
    local g, model, labels = fork(16, 16, 0.25)
    local a = all_low(g, 1)
    local program = core.program(model, a, { keep_all = true })
    local add = index_of(g, "add")
    program:forward(one, labels)
    assert.equal(30, program:read(add):get(1)) -- FP(4,3,4) ends at 30
    assert.equal(1, stats_of(program, add, "v").overflow)
    local before = a:ratios().ratio_lo
    assert.same({ { operator = add, role = "v" } }, program:promote(0.01))
    assert.equal("FP(6,9,0)", (a:get(add, "v")))
    assert.is_true(a:ratios().ratio_lo < before)
    program:forward(one, labels)
    assert.equal(32, program:read(add):get(1))
    assert.same({}, program:promote(0.01))
  end)

  it("refuses a promotion threshold of zero, which would promote everything", function()
    local g, model, labels = fork(1, 1)
    local program = core.program(model, all_low(g, 1))
    program:forward(one, labels)
    assert.has_error(function() program:promote(0) end, "threshold: 0, must be above 0 and at most 1")
  end)

  it("does not change values in binary32, not even infinities", function()
    local g, model, labels = fork(3e38, 3e38)
    local program = core.program(model, core.assignment(g, 1, net.fp32), { keep_all = true })
    program:forward(one, labels)
    assert.equal(math.huge, program:read(index_of(g, "add")):get(1))
  end)
end)

describe("stochastic rounding in a step", function()
  local values = {}
  for i = 1, 4096 do values[i] = 1.0625 end -- halfway between two values of FP(4,3,4)
  local images = core.tensor({ 1, 64, 64, 1 }, values)

  local function forward(seed, step, threads)
    core.set_threads(threads or 2)
    local g = core.graph()
    local x = g:add("avgpool", "pool", { g:add("relu", "relu", { g:input { 1, 64, 64 } }) }, { kernel = 64, stride = 64 })
    g:add("nll_loss", "loss", { g:flatten(x) })
    local program = core.program(core.model(g), all_low(g, 1), { rounding = "stochastic", seed = seed, keep_all = true })
    program:forward(images, { 0 }, step)
    return program:read(0)
  end

  it("depends on seed and step, not on the number of threads", function()
    local bits = forward(1, 1):tostring()
    assert.equal(bits, forward(1, 1, 1):tostring())
    assert.not_equal(bits, forward(2, 1):tostring())
    assert.not_equal(bits, forward(1, 2):tostring())
  end)

  it("goes up about half of the time in the middle", function()
    local up = 0
    for _, v in ipairs(forward(5, 9):totable()) do
      assert.is_true(v == 1 or v == 1.125)
      if v > 1 then up = up + 1 end
    end
    assert.near(2048, up, 160) -- five standard deviations
  end)
end)
