-- Counts of values by exponent, before they are rounded. If only one tensor is low, its values before rounding are what they
-- are in binary32: so a training in binary32 that keeps everything gives the expected counts.
local core = require "mptl.core"
local net = require "support.network"
local precision = require "mptl.precision"
local storage = require "support.storage"

local batch = 7
local low = { v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,4)", dtheta = "FP(3,2,0)" }
local fp32 = { v = "fp32", dv = "fp32", theta = "fp32", dtheta = "fp32" }
local images, labels = storage.images_of(batch, { 3, 8, 8 })

--- floor(log2 |x|), as C's %a writes it.
local function exponent(x)
  return math.tointeger(tonumber(("%a"):format(x):match "^%-?0x1[%x.]*p([+-]%d+)$"))
end

--- {zeros=, inf=, nan=, max_abs=, [exponent] = count} of a list of numbers.
local function count(values)
  local c = { zeros = 0, inf = 0, nan = 0, max_abs = 0 }
  for _, x in ipairs(values) do
    local kind = x == 0 and "zeros" or x ~= x and "nan" or math.abs(x) == math.huge and "inf" or exponent(x)
    c[kind] = (c[kind] or 0) + 1
    if x == x and math.abs(x) < math.huge then c.max_abs = math.max(c.max_abs, math.abs(x)) end
  end
  return c
end

--- What a program counted, in the same form, by operator and role; and how many values.
local function counted(program)
  local by, sums = {}, {}
  for _, e in ipairs(program:exponents()) do
    local c = { zeros = e.zeros, inf = e.inf, nan = e.nan, max_abs = e.max_abs }
    local sum = e.zeros + e.inf + e.nan
    for i, n in ipairs(e.counts) do
      c[e.first + i - 1] = n > 0 and n or nil
      sum = sum + n
    end
    by[e.operator .. e.role], sums[e.operator .. e.role] = c, sum
  end
  return by, sums
end

local function run(graph, assignment, options)
  local model = core.model(graph, { seed = 4 })
  options.compute, options.input_gradient = "f32", true
  local program = core.program(model, assignment, options)
  program:count_exponents(true)
  program:forward(images, labels, 3)
  program:backward(64)
  return program, model
end

--- What every tensor of the graph is in binary32: lists by operator and role; and the operators whose gradient is a sum.
local function in_binary32(graph)
  local program, model = run(graph, core.assignment(graph, batch, { high = fp32, low = fp32 }), { keep_all = true })
  local values, readers = {}, {}
  for _, op in ipairs(graph:operators()) do
    values[op.index .. "v"] = program:read(op.index, "value"):totable()
    values[op.index .. "dv"] = program:read(op.index, "gradient"):totable()
    for _, k in ipairs(op.inputs) do readers[k] = (readers[k] or 0) + 1 end
    for _, p in ipairs(graph:parameters()) do
      if not p.buffer and p.name:match "^(.*)%.[^.]+$" == op.name then
        for role, t in pairs { theta = model:tensor(p.name), dtheta = model:grad(p.name) } do
          local list = values[op.index .. role] or {}
          values[op.index .. role] = table.move(t:totable(), 1, t:numel(), #list + 1, list)
        end
      end
    end
  end
  return values, readers
end

describe("exponents", function()
  for _, network in ipairs { "tiny_resnet", "tiny_mixture", "tiny_layernorms" } do
    it("are those of each tensor before it is rounded: " .. network, function()
      local graph = net[network]()
      local values, readers = in_binary32(graph)
      local compared = 0
      for _, op in ipairs(graph:operators()) do
        for _, role in ipairs { "v", "dv", "theta", "dtheta" } do
          local key, what = op.index .. role, role .. " of " .. op.name
          local one_sender = role ~= "dv" or (readers[op.index] or 0) <= 1
          if values[key] and one_sender then
            local assignment = core.assignment(graph, batch, { high = fp32, low = low })
            assignment:set_low(op.index, role, true)
            assert.same(count(values[key]), counted(run(graph, assignment, {}))[key], what)
            compared = compared + 1
          end
        end
      end
      assert.is_true(compared >= 2 * #graph:operators())
    end)

    it("add up to the elements that were rounded, in every format: " .. network, function()
      local graph = net[network]()
      for _, name in ipairs { "fp32", "demotion", "uniform_low" } do
        local plan, n = precision.plan(precision.named(name), graph, batch), 0
        local program = run(graph, plan.assignment, { rounding = "stochastic" })
        local _, sums = counted(program)
        for _, s in ipairs(program:stats()) do
          assert.equal(s.elements, sums[s.operator .. s.role], s.role .. " of operator " .. s.operator)
          n = n + 1
        end
        local tensors = 0
        for _, t in ipairs(plan.graph:tensors()) do tensors = tensors + (t.numel > 0 and 1 or 0) end
        assert.equal(tensors, n) -- the input's gradient was asked for: all there are
      end
    end)

    it("are the same in packed and emulated storage, fused or not: " .. network, function()
      local graph = net[network]()
      local function all(options)
        options.rounding, options.seed = "stochastic", 5
        return (counted((run(graph, precision.plan(precision.named "demotion", graph, batch).assignment, options))))
      end
      local packed = all {}
      assert.same(packed, all { storage = "emulated" })
      assert.same(packed, all { keep_all = true })
    end)
  end

  it("count infinities and NaNs separately", function()
    local g = core.graph()
    local x = g:add("conv2d", "conv", { g:input { 1, 1, 1 } }, { out = 1, bias = false })
    local set_head, given = net.cotangent_head(g, x, 4, { 1, 1, 1, 1 })
    local model = core.model(g)
    set_head(model)
    model:tensor("conv.weight"):fill(1)
    local program = core.program(model, core.assignment(g, 4, net.hfp8))
    program:count_exponents(true)
    program:forward(core.tensor({ 4, 1, 1, 1 }, { 0 / 0, math.huge, -0.0, 2 ^ -149 }), given)
    assert.same({
      operator = 0, role = "v", zeros = 1, inf = 1, nan = 1, first = -149, counts = { 1 }, max_abs = 2 ^ -149,
    }, program:exponents()[1])
  end)

  it("exist for the steps in which counting is switched on", function()
    local graph = net.tiny_resnet()
    local program = core.program(core.model(graph), precision.plan(precision.named "demotion", graph, batch).assignment)
    program:forward(images, labels)
    assert.is_nil(program:exponents())
    program:count_exponents(true)
    assert.is_nil(program:exponents())
    program:forward(images, labels)
    local first = program:exponents()
    assert.is_true(#first > 0)
    program:forward(images, labels) -- they are not added up over steps
    assert.same(first, program:exponents())
    program:count_exponents(false)
    program:forward(images, labels)
    assert.is_nil(program:exponents())
  end)
end)
