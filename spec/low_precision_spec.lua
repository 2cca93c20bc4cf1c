-- Trainings in low precision against an independent implementation (spec/make_low_fixture.py). No value in them is near a
-- tie, so every rounded tensor must be identical.
local core = require "mptl.core"
local net = require "support.network"

--- Graph, model with the fixture's parameters, and a program under its groups.
local function build(fixture, candidates)
  local graph = net.tiny_resnet()
  local model = core.model(graph)
  for name, t in pairs(fixture.parameters) do model:tensor(name):copy(core.tensor(t.dims, t.data)) end
  local assignment = core.assignment(graph, #fixture.labels, candidates)
  for _, group in ipairs(fixture.low_groups) do assignment:set_group(group, true) end
  return graph, model, core.program(model, assignment, { keep_all = true, input_gradient = true })
end

local function assert_equal(t, got, what)
  local want = core.tensor(t.dims, t.data):totable()
  assert.equal(#want, #got, what)
  for i = 1, #want do
    if want[i] ~= got[i] then
      error(("%s: element %d is %.9g, expected %.9g"):format(what, i, got[i], want[i]), 2)
    end
  end
end

--- The fixtures' digest of a list of values.
local function digest(values)
  local sum = 0.0
  for i, x in ipairs(values) do sum = sum + x * ((i - 1) % 31 + 1) end
  return sum
end

local function compare_step(fixture, i, graph, model, program)
  local step, sgd = fixture.steps[i], fixture.optimizer
  local result = program:step(net.images(step.x), fixture.labels, { step = i, lr = sgd.lr, momentum = sgd.momentum,
    weight_decay = sgd.weight_decay, loss_scale = step.loss_scale })
  local at = "step " .. i .. ": "
  assert.is_true(result.applied)
  local operators = graph:operators()
  assert.equal(#step.operators, #operators)
  local counts = {}
  for k, op in ipairs(operators) do
    local want = step.operators[k]
    assert.equal(want.name, op.name)
    for role, which in pairs { v = "value", dv = "gradient" } do
      local got = net.values(program:read(op.index, which))
      local whole = step[role] and step[role][op.name]
      if whole then assert_equal(whole, got, at .. role .. " of " .. op.name) end
      assert.equal(want[role], digest(got), at .. role .. " of " .. op.name)
    end
    counts[op.index] = want.counts
  end
  for name, t in pairs(step.dtheta) do assert_equal(t, model:grad(name):totable(), at .. "dtheta of " .. name) end
  assert.equal(step.loss, result.loss)
  for _, s in ipairs(program:stats()) do
    local what = at .. s.role .. " of " .. operators[s.operator + 1].name
    assert.same(counts[s.operator][s.role] or { 0, 0 }, { s.underflow, s.overflow }, what .. ": underflows, overflows")
  end
end

local function compare_training(fixture, candidates)
  local graph, model, program = build(fixture, candidates)
  for i = 1, #fixture.steps do compare_step(fixture, i, graph, model, program) end
  for name, t in pairs(fixture.parameters_after) do net.assert_close(t.data, model:tensor(name):totable(), 1e-6, name) end
  for name, t in pairs(fixture.buffers_after) do net.assert_close(t.data, model:tensor(name):totable(), 1e-6, name) end
end

describe("training in low precision", function()
  it("rounds every tensor as the method says, all of them low", function()
    compare_training(require "fixtures.resnet_tiny_low", net.hfp8)
  end)

  it("rounds every tensor as the method says, the largest groups low", function()
    compare_training(require "fixtures.resnet_tiny_mixed", net.hfp8)
  end)

  it("gives every rounding its own bias shift in formats FP(e,m,auto)", function()
    local low = { v = "FP(3,3,auto)", dv = "FP(4,1,auto)", theta = "FP(3,2,auto)", dtheta = "FP(3,4,auto)" }
    compare_training(require "fixtures.resnet_tiny_auto", { high = net.hfp8.high, low = low })
  end)
end)
