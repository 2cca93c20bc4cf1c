local json = require "mptl.json"
local nn = require "mptl.nn"
local precision = require "mptl.precision"
local script = require "mptl.script"

local root = os.getenv "MPTL_ROOT"

-- input conv1 relu conv2 bn add relu_2 conv3 relu_3 pool linear log_softmax nll_loss
local function small_graph(norm)
  local Net = nn.Module("Net")
  function Net:init()
    self.conv1 = nn.Conv2d { 3, 4, kernel = 1, bias = false }
    self.conv2 = nn.Conv2d { 4, 4, kernel = 1, bias = false }
    self.bn = (norm or nn.BatchNorm2d)(4)
    self.conv3 = nn.Conv2d { 4, 8, kernel = 1 }
    self.pool = nn.AvgPool2d(4)
    self.linear = nn.Linear { 8, 2 }
  end
  function Net:forward(x)
    x = nn.relu(self.conv1(x))
    x = nn.relu(self.bn(self.conv2(x)) + x)
    x = nn.relu(self.conv3(x))
    return self.linear(nn.flatten(self.pool(x)))
  end
  return nn.record(Net(), { input = { 3, 4, 4 }, classes = 2 })
end

local function low_tensors(plan)
  local list = {}
  for _, tensor in ipairs(plan.graph:tensors()) do
    if tensor.is_low then list[#list + 1] = tensor.operator.name .. "." .. tensor.role end
  end
  return list
end

local function plan_small(policy)
  return precision.plan(policy, small_graph(), 2)
end

describe("precision groups", function()
  for _, model in ipairs { "resnet18", "squeezenet" } do
    it("have the published sizes, orders and ratios for " .. model, function()
      local file <close> = assert(io.open(("%s/spec/fixtures/groups_%s.json"):format(root, model)))
      local expected = assert(json.decode(file:read "a"))
      local cfg = script.configure(model .. "_cifar.lua", {})
      local graph = script.record(cfg)
      local plan = precision.plan(precision.fp32(), graph, 128)
      assert.equal(expected.ops, #plan.graph:operators())
      assert.equal(expected.total_numel, plan.graph:measure().elements)
      local groups, parameters = {}, 0
      for i, g in ipairs(plan.graph:groups()) do
        groups[i] = { group = g.index, activations = g.activations, parameters = g.parameters, numel = g.numel }
        parameters = parameters + g.parameters
      end
      assert.same(expected.groups, groups)
      assert.equal(expected.params, parameters)
      local checked = 0
      for r, result in pairs(expected.demotion) do
        local demoted = precision.plan(precision.demotion { ratio = tonumber(r) }, graph, 128)
        assert.same(result.low, demoted.order)
        assert.near(result.ratio_lo, demoted.graph:ratio_lo(), 1e-12)
        checked = checked + 1
      end
      assert.equal(11, checked)
    end)
  end

  it("hold v and dv of their operators, theta and dtheta of the operators they feed", function()
    local plan = plan_small(precision.fp32())
    local found = {}
    for _, g in ipairs(plan.graph:groups()) do found[#found + 1] = { g.activations, g.parameters, g.numel } end
    assert.same({
      { 96, 12, 216 },                 -- input; conv1's weight
      { 2 * 128, 16, 544 },            -- conv1 relu; conv2's weight
      { 4 * 128, 8 + 40, 1120 },       -- conv2 bn add relu_2; bn, conv3
      { 2 * 256 + 16, 18, 1092 },      -- conv3 relu_3 pool; linear
      { 4 + 4 + 2, 0, 20 },            -- linear log_softmax nll_loss
    }, found)
    local op = plan.graph:operator "conv3"
    assert.same({ 3, 2 }, { op.v.group.index, op.theta.group.index })
    assert.same({ 8 * 4 + 8, 2 * 8 * 16 }, { op.theta.numel, op.v.numel })
  end)
end)

describe("precision.demotion", function()
  it("demotes nothing for r = 0 and everything for r = 1", function()
    assert.same({}, low_tensors(plan_small(precision.demotion { ratio = 0 })))
    local plan = plan_small(precision.demotion { ratio = 1 })
    assert.equal(#plan.graph:tensors(), #low_tensors(plan))
  end)

  it("demotes the larger group first, of equal ones that with the lower index", function()
    assert.same({ 2 }, plan_small(precision.demotion { ratio = 0.3 }).order)
    assert.same({ 2, 3 }, plan_small(precision.demotion { ratio = 0.5 }).order)
  end)

  it("gives the low candidates of each role", function()
    local op = plan_small(precision.demotion { ratio = 0.3 }).graph:operator "conv2"
    assert.same({ "FP(4,3,4)", "FP(5,2,0)", "FP(6,9,0)", "FP(6,9,0)" },
      { op.v.format, op.dv.format, op.theta.format, op.dtheta.format })
  end)
end)

describe("precision.increasing, top_k, random", function()
  it("increasing starts with the smallest", function()
    assert.same({ 4, 0, 1 }, plan_small(precision.increasing { ratio = 0.2 }).order)
  end)

  it("top_k takes the k largest", function()
    assert.same({ 2, 3, 1 }, plan_small(precision.top_k { k = 3 }).order)
    assert.error_matches(function() plan_small(precision.top_k { k = 9 }) end, "top_k: k 9, the graph has 5 groups")
  end)

  it("random depends on its seed alone, and stays within r and r_max", function()
    local cfg = script.configure("resnet18_cifar.lua", {})
    local graph = script.record(cfg)
    local function draw(seed) return precision.plan(precision.random { ratio = 0.4, seed = seed, r_max = 0.42 }, graph, 128) end
    math.randomseed(1)
    local first = draw(1)
    math.randomseed(2)
    assert.same(first.order, draw(1).order)
    assert.not_same(first.order, draw(2).order)
    for seed = 1, 5 do
      local ratio = draw(seed).graph:ratio_lo()
      assert.is_true(ratio >= 0.4 and ratio <= 0.42)
    end
  end)

  it("random says when no order reaches the range", function()
    assert.error_matches(function() plan_small(precision.random { ratio = 0.9999, r_max = 0.99995 }) end,
      "random: none of 1000 orders gives a ratio from 0%.9999 to 0%.99995, the closest gives 1%.0000; accepted is a larger r_max")
  end)
end)

describe("precision.operator and amp", function()
  it("operator lowers the inputs of GEMM operators, their parameters and output gradients, not the ends", function()
    assert.same({
      "relu.v", "conv2.dv", "conv2.theta", "conv2.dtheta", "relu_2.v", "conv3.dv", "conv3.theta", "conv3.dtheta",
    }, low_tensors(plan_small(precision.operator())))
  end)

  it("amp lowers GEMM outputs too, and what only follows low inputs", function()
    assert.same({
      "relu.v", "relu.dv", "conv2.v", "conv2.dv", "conv2.theta", "conv2.dtheta", "bn.v", "bn.dv", "bn.theta", "bn.dtheta",
      "add.v", "add.dv", "relu_2.v", "relu_2.dv", "conv3.v", "conv3.dv", "conv3.theta", "conv3.dtheta", "relu_3.v", "relu_3.dv",
    }, low_tensors(plan_small(precision.amp())))
  end)

  it("amp lowers a layer norm as it does a batch norm", function()
    local with_batch_norm = low_tensors(plan_small(precision.amp()))
    assert.same(with_batch_norm, low_tensors(precision.plan(precision.amp(), small_graph(nn.LayerNorm), 2)))
  end)

  it("leave everything high when there are only a first and a last layer", function()
    local graph = nn.record(nn.Sequential { nn.Conv2d { 3, 2, kernel = 4 }, nn.Flatten(), nn.Linear { 2, 2 } },
      { input = { 3, 4, 4 } })
    assert.same({}, low_tensors(precision.plan(precision.operator(), graph, 2)))
    assert.same({}, low_tensors(precision.plan(precision.amp(), graph, 2)))
  end)
end)

describe("precision.uniform and uniform_low", function()
  it("uniform gives every tensor the format", function()
    for _, tensor in ipairs(plan_small(precision.uniform "FP(5,2,0)").graph:tensors()) do
      assert.equal("FP(5,2,0)", tensor.format)
    end
    local m = plan_small(precision.fp32()).graph:measure()
    assert.same({ 0.0, 0.0, m.elements * 32 }, { m.ratio_lo, m.bits_ratio, m.bits_now })
  end)

  it("uniform_low makes every tensor low", function()
    local plan = plan_small(precision.uniform_low())
    local m = plan.graph:measure()
    assert.equal(1.0, m.ratio_lo)
    -- three of the four roles go from 16 to 8 bits, dtheta (94 of 2992 elements) stays
    assert.same({ 2992, 94 * 16 + 2898 * 8 }, { m.elements, m.bits_now })
    assert.near(2 * 2898 * 8 / (2992 * 16), m.bits_ratio, 1e-12)
  end)
end)

describe("precision.policy()", function()
  it("is a function of the described graph", function()
    local plan = plan_small(precision.policy(function(graph, C)
      assert.equal("FP(4,3,4)", C.low.v)
      local groups = graph:groups()
      table.sort(groups, function(a, b) return a.numel > b.numel end)
      for _, g in ipairs(groups) do
        if graph:ratio_lo() >= 0.6 then break end
        if g.index ~= 2 then g:demote() end
      end
      graph:operator("conv2").v:set("bf16")
    end))
    assert.same({ 3, 1, 0 }, plan.order)
    assert.equal("bf16", plan.graph:operator("conv2").v.format)
    assert.is_false(plan.graph:group(2).low)
  end)

  it("can undo what it did", function()
    local plan = plan_small(precision.policy(function(graph)
      graph:group(1):demote()
      graph:group(2):demote()
      graph:group(1):promote()
      graph:operator("relu_2").v:high()
    end))
    assert.same({ 2 }, plan.order)
    assert.is_false(plan.graph:operator("relu_2").v.is_low)
    assert.equal(4, plan.graph:changes())
  end)

  it("orders groups by their latest demotion", function()
    local order = plan_small(precision.policy(function(graph)
      for _, index in ipairs { 3, 1, 4, 0 } do graph:group(index):demote() end
      graph:group(1):demote()
      graph:group(4):promote()
      assert.same({ 3, 0, 1 }, graph:order())
      graph:group(4):demote()
    end)).order
    assert.same({ 3, 0, 1, 4 }, order)
  end)

  it("gets errors with its own line", function()
    local function mistake(choose)
      local ok, message = pcall(plan_small, precision.policy(choose))
      assert.is_false(ok)
      return message
    end
    local here = debug.getinfo(1, "l").currentline
    local function at(line, text) return ("precision_spec%%.lua:%d: %s"):format(here + line, text) end
    assert.matches(at(3, "group 99: the graph has groups 0 to 4$"), mistake(function(graph)
      graph:group(99):demote() end))
    assert.matches(at(5, 'operator conv9: the graph has none of that name %(did you mean "conv1"%?%)$'), mistake(function(graph)
      graph:operator("conv9").v:low() end))
    assert.matches(at(7, "format FP%(9,2,0%)"), mistake(function(graph)
      graph:operator("conv1").v:set("FP(9,2,0)") end))
    assert.matches(at(9, "group has no field size, it has activations,"), mistake(function(graph)
      local _ = graph:group(1).size end))
    assert.matches(at(11, "attempt to index a nil value"), mistake(function(graph)
      graph:operator("relu").theta:low() end))
  end)

  it("cannot assign to fields that are read-only, and the error says what to call", function()
    local graph
    local function refuses(message, change)
      local ok, told = pcall(plan_small, precision.policy(function(...)
        graph = ...
        local before = table.pack(tostring(graph), tostring(graph:operator("conv1").v), tostring(graph:group(1)))
        local went, error_message = pcall(change, ...)
        assert.same(before, table.pack(tostring(graph), tostring(graph:operator("conv1").v), tostring(graph:group(1))))
        assert.is_false(went)
        error(error_message, 0)
      end))
      assert.is_false(ok)
      assert.equal(message, (told:gsub("^[^:]*:%d+: ", "")))
    end
    refuses('tensor.format = "fp16": cannot be assigned, accepted are tensor:set(FORMAT), tensor:low(), tensor:high()',
      function(g) g:operator("conv1").v.format = "fp16" end)
    refuses("tensor.is_low = false: cannot be assigned, accepted are tensor:low(), tensor:high(), tensor:set(FORMAT)",
      function(g) g:tensors()[1].is_low = false end)
    refuses("group.low = true: cannot be assigned, accepted are group:demote(), group:promote()",
      function(g) g:group(1).low = true end)
    refuses("tensor.numel = 1: cannot be assigned, it is read-only", function(g) g:operator("conv1").v.numel = 1 end)
    refuses('operator.name = "x": cannot be assigned, it is read-only', function(g) g:operator("conv1").name = "x" end)
    refuses("group.index = 0: cannot be assigned, it is read-only", function(g) g:group(1).index = 0 end)
    refuses("operator.inputs[1] = nil: cannot be assigned, it is read-only",
      function(g) g:operator("conv1").inputs[1] = nil end)
    refuses("group has no field colour, it has activations, demote, index, low, numel, parameters, promote",
      function(g) g:group(1).colour = 1 end)
    refuses('C.low.v = "fp16": cannot be assigned, accepted are formats = {high =, low =} among the policy\'s options',
      function(_, C) C.low.v = "fp16" end)
    refuses("policy.options.ratio = 1: cannot be assigned, it is read-only", function(_, _, options) options.ratio = 1 end)
    local policy = precision.demotion { ratio = 0.5 }
    assert.error_matches(function() policy.ratio = 0.9 end, "policy.ratio = 0.9: cannot be assigned, it is read%-only$")
    assert.error_matches(function() require("mptl").format("fp16").m = 3 end, "format.m = 3: cannot be assigned, it is")
  end)

  it("shows inputs and consumers as lists", function()
    local op = plan_small(precision.fp32()).graph:operator("add")
    assert.same({ 2, 1 }, { #op.inputs, #op.consumers })
    local names = {}
    for i, input in ipairs(op.inputs) do names[i] = input.name end
    for i, consumer in pairs(op.consumers) do names[2 + i] = consumer.name end
    assert.same({ "bn", "relu", "relu_2" }, names)
  end)

  it("checks options and candidate sets", function()
    local function fails(f, pattern) assert.error_matches(f, pattern) end
    fails(function() precision.demotion { ratio = 2 } end, "demotion: ratio 2, accepted are 0 to 1$")
    fails(function() precision.demotion { threshold = 0 } end, "demotion: threshold 0, accepted are above 0 to 1, or false")
    fails(function() precision.demotion { rato = 1 } end, 'demotion: unknown option rato %(did you mean "ratio"%?%)')
    fails(function() precision.operator { formats = "hfp9" } end,
      'formats: hfp9, accepted are bf16, fp16, fp8, hfp8, HIGH/LOW, or a table {high=, low=} %(did you mean "hfp8"%?%)$')
    fails(function() precision.operator { formats = { high = "fp32", low = { v = "bf16" } } } end,
      "formats.low: the format of dv is missing")
    fails(function() precision.policy(3) end, "precision.policy: number, must be a function")
  end)

  it("takes candidate sets as tables", function()
    local plan = plan_small(precision.uniform_low { formats = { high = "fp32", low = "bf16" } })
    assert.equal("bf16", plan.graph:operator("conv1").theta.format)
    assert.equal(1.0, plan.graph:measure().bits_ratio)
  end)
end)
