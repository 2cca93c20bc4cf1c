-- Losses: targets of both types, label smoothing, outputs that are marked.
local core = require "mptl.core"
local net = require "support.network"
local precision = require "mptl.precision"
local storage = require "support.storage"

local TOLERANCE = 1e-6 -- of the largest element

-- A training program whose loss is kinds, one after the other, of the input itself.
local function program_of(shape, n, kinds, attributes, options)
  local g = core.graph()
  local x = g:input(shape)
  if #shape > 1 then x = g:flatten(x) end
  for i, kind in ipairs(kinds) do x = g:add(kind, kind, { x }, i == #kinds and attributes or {}) end
  options = options or {}
  options.batch, options.input_gradient, options.keep_all = n, true, true
  return core.program(core.model(g), core.assignment(g, n, net.fp32), options)
end

-- The losses and gradients of a case; targets is a list of labels or a tensor of values.
local function run(case, kinds, attributes, targets)
  local images, shape = net.images(case.x)
  local n = case.x.dims[1]
  local type_of_targets = type(targets) == "table" and "labels" or "values"
  local program = program_of(shape, n, kinds, attributes, { targets = type_of_targets })
  local result = program:forward(images, targets)
  program:backward(n) -- every sample's gradient is 1
  return program:read(#kinds):totable(), program:read(0, "gradient"):totable(), result
end

local function values(t) return core.tensor(t.dims, t.data) end

local function one_hot(labels, n)
  local list = {}
  for i, label in ipairs(labels) do
    for k = 1, n do list[(i - 1) * n + k] = k - 1 == label and 1 or 0 end
  end
  return core.tensor({ #labels, n }, list)
end

-- Runs a check for each of a fixture's cases.
local function each_case(name, check)
  for _, case in ipairs(require("fixtures." .. name)) do
    it(("equal PyTorch: %s, %s"):format(name, case.name), function()
      local y, dx, result = check(case)
      net.assert_close(case.y.data, y, TOLERANCE, "y")
      net.assert_close(case.dx.data, dx, TOLERANCE, "dx")
      local sum = 0
      for _, loss in ipairs(y) do sum = sum + loss end
      assert.equal(sum, result.loss)
    end)
  end
end

local entropy = { "log_softmax", "nll_loss" }

describe("losses", function()
  each_case("label_smoothing", function(case)
    return run(case, entropy, { label_smoothing = case.label_smoothing }, case.labels)
  end)

  each_case("cross_entropy_of_values", function(case) return run(case, entropy, {}, values(case.targets)) end)

  each_case("mse_loss", function(case) return run(case, { "mse_loss" }, {}, case.labels or values(case.targets)) end)

  it("do not smooth targets that are values", function()
    local case = require("fixtures.cross_entropy_of_values")[1]
    assert.same({ run(case, entropy, {}, values(case.targets)) },
      { run(case, entropy, { label_smoothing = 0.5 }, values(case.targets)) })
  end)

  it("are the same for labels and for their values", function()
    for _, kinds in ipairs { { "nll_loss" }, entropy, { "mse_loss" } } do
      local case = { x = { dims = { 4, 3 }, data = net.numbers(12, 3) } }
      local labels = { 2, 0, 1, 1 }
      local y, dx, of_labels = run(case, kinds, {}, labels)
      local values_y, values_dx, of_values = run(case, kinds, {}, one_hot(labels, 3))
      assert.same({ y, dx, of_labels.loss }, { values_y, values_dx, of_values.loss })
    end
  end)

  it("take the values of a flattened image in the order of the features", function()
    local program = program_of({ 2, 1, 2 }, 1, { "nll_loss" }, {}, { targets = "values" })
    -- channels last: pixel (0, 0) has features 0 and 2, pixel (0, 1) has 1 and 3
    local result = program:forward(core.tensor({ 1, 1, 2, 2 }, { 1, 10, 100, 1000 }), core.tensor({ 1, 4 }, { 1, 2, 3, 4 }))
    assert.equal(-(1 * 1 + 2 * 100 + 3 * 10 + 4 * 1000), result.loss)
    program:backward(1)
    assert.same({ -1, -3, -2, -4 }, program:read(0, "gradient"):totable())
  end)

  for _, kind in ipairs { "nll_loss", "mse_loss" } do
    it("are the same bits in packed and emulated storage, rounded to low formats: " .. kind, function()
      local g = core.graph()
      local x = g:add("linear", "fc", { g:flatten(g:input { 3, 8, 8 }) }, { out = 5 })
      g:add(kind, "loss", { x }, { label_smoothing = 0.1 })
      for _, name in ipairs { "uniform_low", "amp" } do
        local function plan() return precision.plan(precision.named(name), g, 7) end
        storage.same(g, plan, 4, 7, { 3, 8, 8 }, { storage = "packed" }, { storage = "emulated" })
      end
    end)
  end

  it("count the samples whose largest score is where their largest target is", function()
    local scores = core.tensor({ 3, 3 }, { 1, 2, 3, 3, 2, 1, 1, 3, 2 })
    local targets = core.tensor({ 3, 3 }, { 0.25, 0.25, 0.5, 0, 1, 0, 0, 0.75, 0.25 })
    local result = program_of({ 3 }, 3, { "nll_loss" }, {}, { targets = "values" }):forward(scores, targets)
    assert.same({ 2, 3 }, { result.correct, result.count })
  end)

  it("count them for labels with every loss, for values only where those are probabilities", function()
    local scores = core.tensor({ 2, 3 }, { 1, 2, 3, 3, 2, 1 })
    for kind, counted in pairs { nll_loss = 1, mse_loss = false } do
      assert.equal(1, program_of({ 3 }, 2, { kind }, {}, { targets = "labels" }):forward(scores, { 2, 1 }).correct)
      local given = core.tensor({ 2, 3 }, { 0, 0, 1, 0, 1, 0 })
      local result = program_of({ 3 }, 2, { kind }, {}, { targets = "values" }):forward(scores, given)
      assert.equal(counted or nil, result.correct)
    end
  end)

  it("refuse targets of another type or number", function()
    local x = core.tensor({ 2, 3 }, { 1, 2, 3, 4, 5, 6 })
    local function fails(message, targets, given)
      local program = program_of({ 3 }, 2, { "nll_loss" }, {}, { targets = targets })
      assert.has_error(function() program:forward(x, given) end, message)
    end
    fails("nll_loss (nll_loss): targets are labels, the program takes values", "values", { 0, 1 })
    fails("nll_loss (nll_loss): targets are values, the program takes labels", "labels", core.tensor { 2, 3 })
    fails("targets: 5 values, the loss takes 3 for each sample", "values", core.tensor { 5 })
    assert.has_error(function() program_of({ 3 }, 2, { "nll_loss" }, {}, { targets = "words" }) end)
  end)

  it("refuse label smoothing beyond 0 to 1, and a second loss", function()
    assert.has_error(function() program_of({ 3 }, 1, { "nll_loss" }, { label_smoothing = 1.5 }) end,
      "nll_loss (nll_loss): label_smoothing: 1.5, accepted are 0 to 1")
    local g = core.graph()
    local x = g:input { 3 }
    g:add("nll_loss", "first", { x })
    assert.has_error(function() g:add("nll_loss", "second", { x }) end,
      "second (nll_loss): a second loss, the first one is first")
  end)
end)

describe("outputs that are marked", function()
  it("can be read after a step, also of operators behind the loss", function()
    local g = core.graph()
    local x = g:add("linear", "fc", { g:input { 2 } }, { out = 2, bias = false })
    local hidden = g:add("sigmoid", "sigmoid", { x })
    local y = g:add("linear", "head", { hidden }, { out = 2 })
    g:add("nll_loss", "loss", { g:add("log_softmax", "log_softmax", { y }) })
    g:mark_output(hidden)
    local model = core.model(g)
    model:tensor "fc.weight":fill(0)
    local program = core.program(model, core.assignment(g, 1, net.fp32))
    program:forward(core.tensor({ 1, 2 }, { 3, 4 }), { 1 })
    program:backward(1)
    assert.same({ 0.5, 0.5 }, program:read(2):totable())
  end)
end)
