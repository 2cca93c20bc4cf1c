-- The planner on random graphs: what holds for any graph, ratio and policy that demotes by groups. The graphs branch, join and
-- share values; expected results are counted while they are made, from the method's text only.
local core = require "mptl.core"
local nn = require "mptl.nn"
local precision = require "mptl.precision"
local net = require "support.network"

local plan = precision.plan

local side, classes, graphs = 4, 10, 30

local function generator(seed)
  local state = seed
  return function(n) -- a whole number from 1 to n
    state = (state * 1103515245 + 12345) & 0x7fffffff
    return (state >> 12) % n + 1
  end
end

-- A module of random operators, and the list of its operators: {inputs, numel (of a sample), parameters, gemm} by operator.
local function random_module(draw)
  local made, Net = {}, nn.Module("Net")
  local function note(x, inputs, parameters, gemm)
    local numel = 1
    for _, size in ipairs(x.shape) do numel = numel * size end
    made[#made + 1] = { inputs = inputs, numel = numel, parameters = parameters or 0, gemm = gemm or false }
    return { x = x, op = #made, uses = 0 }
  end
  function Net:forward(x)
    local values = { note(x, {}) }
    local function pick()
      local value = values[draw(#values)]
      value.uses = value.uses + 1
      return value
    end
    local function layer(class, from, parameters, ...)
      local module = nn[class](...)
      self["m" .. #made] = module
      return note(module(from.x), { from.op }, parameters, class == "Conv2d" or class == "Linear")
    end
    local kinds = {
      function(v)
        local c, out, k, bias = v.x.shape[1], 4 * draw(3), 2 * draw(2) - 1, draw(2) == 1
        return layer("Conv2d", v, out * c * k * k + (bias and out or 0), { c, out, kernel = k, padding = k // 2, bias = bias })
      end,
      function(v)
        local c = v.x.shape[1]
        return layer("Conv2d", v, 9 * c, { c, c, kernel = 3, padding = 1, groups = c, bias = false })
      end,
      function(v) -- two groups of one size
        local c = v.x.shape[1]
        for _ = 1, 3 do v = layer("Conv2d", v, c * c, { c, c, kernel = 1, bias = false }) end
        return v
      end,
      function(v) return layer("BatchNorm2d", v, 2 * v.x.shape[1], v.x.shape[1]) end,
      function(v) return layer("LayerNorm", v, 2 * v.x.shape[1], v.x.shape[1]) end,
      function(v) return note(nn.relu(v.x), { v.op }) end,
      function(v) return note(nn.max_pool2d(v.x, 3, 1, 1), { v.op }) end,
      function(v) return note(nn.dropout(v.x), { v.op }) end,
      function(v)
        local w = pick()
        return note(nn.concat { v.x, w.x }, { v.op, w.op })
      end,
      function(v)
        local c = v.x.shape[1]
        return note(nn.slice(v.x, c // 2, c - c // 2), { v.op })
      end,
      function(v)
        local w = pick()
        if v.x.shape[1] ~= w.x.shape[1] then
          w.uses = w.uses - 1
          return note(v.x * v.x, { v.op, v.op })
        end
        return note(v.x + w.x, { v.op, w.op })
      end,
    }
    for _ = 1, draw(14) do values[#values + 1] = kinds[draw(#kinds)](pick()) end
    local ends, from = {}, {}
    for _, v in ipairs(values) do
      if v.uses == 0 then ends[#ends + 1], from[#from + 1] = v.x, v.op end
    end
    local last = note(nn.concat(ends), from)
    last = note(nn.mean(last.x), { last.op })
    local c = last.x.shape[1]
    last = layer("Linear", last, c * classes + classes, { c, classes })
    made[#made + 1] = { inputs = { last.op }, numel = classes, parameters = 0 } -- log_softmax
    made[#made + 1] = { inputs = { last.op + 1 }, numel = 1, parameters = 0 } -- nll_loss
    return last.x
  end
  return Net(), made
end

-- {activations, parameters, numel} by group at a batch size: an operator belongs to the last GEMM operator's group up to it, its
-- parameters to the group of its input.
local function groups_of(made, batch)
  local groups, group_of, last = { { 0, 0, 0 } }, {}, 1
  for i, op in ipairs(made) do
    if op.gemm then
      last = last + 1
      groups[last] = { 0, 0, 0 }
    end
    group_of[i] = last
    groups[last][1] = groups[last][1] + batch * op.numel
    if op.parameters > 0 then
      local of_input = groups[group_of[op.inputs[1]]]
      of_input[2] = of_input[2] + op.parameters
    end
  end
  for _, g in ipairs(groups) do g[3] = 2 * (g[1] + g[2]) end
  return groups, group_of
end

-- Calls check(graph, made, draw) for random graphs, and adds to an error which graph it is about.
local function each_graph(check)
  for seed = 1, graphs do
    local draw = generator(seed * 7919)
    local module, made = random_module(draw)
    local graph = nn.record(module, { input = { 3, side, side }, classes = classes })
    local ok, err = xpcall(check, function(e)
      return type(e) == "table" and e or ("%s\ngraph of seed %d"):format(tostring(e), seed)
    end, graph, made, draw)
    if not ok then error(err, 0) end
  end
end

-- Sizes of groups in the order of a policy, with their indices.
local function in_order(made, batch, before)
  local list = {}
  for i, g in ipairs((groups_of(made, batch))) do list[i] = { index = i - 1, numel = g[3] } end
  table.sort(list, function(a, b)
    if a.numel == b.numel then return a.index < b.index end
    return before(a.numel, b.numel)
  end)
  local total = 0
  for _, g in ipairs(list) do total = total + g.numel end
  return list, total
end

local by_size = {
  demotion = function(a, b) return a > b end,
  increasing = function(a, b) return a < b end,
}

-- Ratios to try: any, 0 and 1, those for which exactly some number of groups is enough, and slightly larger ones.
local function ratios_of(list, total, draw)
  local ratios, low = { 0, 1, draw(1000) / 1000, draw(1000) / 1000 }, 0
  for i = 1, #list - 1 do
    low = low + list[i].numel
    ratios[#ratios + 1] = low / total
    ratios[#ratios + 1] = low / total + 1e-9
  end
  table.sort(ratios)
  return ratios
end

describe("on any graph", function()
  it("groups are the method's, at every batch size", function()
    each_graph(function(graph, made, draw)
      local batch = draw(7)
      local p = plan(precision.fp32(), graph, batch)
      local expected, group_of = groups_of(made, batch)
      local found = {}
      for i, g in ipairs(p.graph:groups()) do found[i] = { g.activations, g.parameters, g.numel } end
      assert.same(expected, found)
      local operators = p.graph:operators()
      assert.equal(#made, #operators)
      for i, op in ipairs(operators) do
        assert.same({ group_of[i] - 1, batch * made[i].numel }, { op.v.group.index, op.v.numel })
        assert.same({ group_of[i] - 1, batch * made[i].numel }, { op.dv.group.index, op.dv.numel })
        assert.equal(made[i].parameters > 0, op.theta ~= nil)
        if op.theta then
          assert.same({ group_of[made[i].inputs[1]] - 1, made[i].parameters }, { op.theta.group.index, op.theta.numel })
          assert.same({ op.theta.group, op.theta.numel }, { op.dtheta.group, op.dtheta.numel })
        end
      end
    end)
  end)

  for name, before in pairs(by_size) do
    it(name .. " reaches the ratio with the shortest prefix of its order, exactly where it is enough", function()
      local ties = 0
      each_graph(function(graph, made, draw)
        local list, total = in_order(made, 2, before)
        for i = 2, #list do ties = ties + (list[i].numel == list[i - 1].numel and 1 or 0) end
        for _, r in ipairs(ratios_of(list, total, draw)) do
          local expected, low = {}, 0
          for _, g in ipairs(list) do
            if low / total >= r then break end
            expected[#expected + 1] = g.index
            low = low + g.numel
          end
          local p = plan(precision[name] { ratio = r }, graph, 2)
          assert.same(expected, p.order)
          assert.equal(low / total, p.graph:ratio_lo())
          for i, g in ipairs(list) do assert.equal(i <= #expected, p.graph:group(g.index).low) end
        end
      end)
      assert.is_true(ties > 10) -- else the order among equals would not be tested
    end)

    it(name .. " is monotone in r: a larger one keeps all that a smaller one made low", function()
      each_graph(function(graph, made, draw)
        local list, total = in_order(made, 2, before)
        local order, elements, bits = {}, 0, 0
        for _, r in ipairs(ratios_of(list, total, draw)) do
          local p = plan(precision[name] { ratio = r }, graph, 2)
          local ratios = p.graph:ratios()
          assert.same(order, table.move(p.order, 1, #order, 1, {}))
          assert.is_true(ratios.ratio_lo >= elements and ratios.bits_ratio >= bits)
          order, elements, bits = p.order, ratios.ratio_lo, ratios.bits_ratio
        end
      end)
    end)
  end

  it("top_k is the beginning of demotion's order", function()
    each_graph(function(graph, made)
      local list = in_order(made, 2, by_size.demotion)
      for k = 1, #list do
        local expected = {}
        for i = 1, k do expected[i] = list[i].index end
        assert.same(expected, plan(precision.top_k { k = k }, graph, 2).order)
      end
    end)
  end)

  it("random demotes each group once, and none that it could do without in its order", function()
    each_graph(function(graph, made, draw)
      local groups, r, total = groups_of(made, 2), draw(1000) / 1000, 0
      for _, g in ipairs(groups) do total = total + g[3] end
      local p = plan(precision.random { ratio = r, r_max = 1, seed = draw(1000) }, graph, 2)
      local low, before, seen = 0, 0, {}
      for _, index in ipairs(p.order) do
        assert.is_nil(seen[index])
        seen[index], before = true, low
        low = low + groups[index + 1][3]
      end
      assert.equal(low / total, p.graph:ratio_lo())
      assert.is_true(low / total >= r and before / total < r)
    end)
  end)

  it("both ratios are what its tensors add up to, for every policy", function()
    local bits = { ["FP(6,9,0)"] = 16, ["FP(4,3,4)"] = 8, ["FP(5,2,0)"] = 8, fp32 = 32 }
    each_graph(function(graph, _, draw)
      local changes = precision.policy(function(described)
        local groups, tensors = described:groups(), described:tensors()
        local formats = { "fp32", "FP(6,9,0)", "FP(4,3,4)", "FP(5,2,0)" }
        for _ = 1, 30 do
          local group, tensor = groups[draw(#groups)], tensors[draw(#tensors)]
          if draw(2) == 1 then group:demote() else group:promote() end
          if draw(2) == 1 then tensor:set(formats[draw(#formats)]) else tensor:low() end
          if draw(4) == 1 then tensor:high() end
        end
      end)
      for _, policy in ipairs { precision.demotion { ratio = draw(100) / 100 }, precision.operator(), precision.amp(),
        precision.uniform_low(), changes } do
        local p = plan(policy, graph, 3)
        local all, low, high_bits, now = 0, 0, 0, 0
        for _, t in ipairs(p.graph:tensors()) do
          all, low = all + t.numel, low + (t.is_low and t.numel or 0)
          high_bits, now = high_bits + 16 * t.numel, now + bits[t.format] * t.numel
        end
        local ratios = p.graph:ratios()
        assert.same({ all, low, low / all }, { ratios.elements, ratios.elements_low, ratios.ratio_lo })
        assert.equal(2 * (high_bits - now) / high_bits, ratios.bits_ratio)
      end
    end)
  end)

  it("promotion makes high the v and theta that overflowed too often, for good, and nothing else", function()
    local promoted = { v = 0, theta = 0 }
    local low = { v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,11)", dtheta = "FP(6,9,0)" } -- theta ends at 0.23
    each_graph(function(graph, _, draw)
      local a = core.assignment(graph, 2, { high = net.hfp8.high, low = low })
      for _, g in ipairs(a:groups()) do a:set_group(g.index, draw(3) > 1) end
      local program = core.program(core.model(graph, { seed = draw(1000) }), a)
      local values = net.numbers(2 * side * side * 3, draw(1000))
      for i, x in ipairs(values) do values[i] = 60 * x end -- FP(4,3,4) ends at 30
      local images = core.tensor({ 2, side, side, 3 }, values)
      for _ = 1, 3 do
        local before, expected, ratio = {}, {}, a:ratios().ratio_lo
        program:forward(images, { 1, 2 })
        local threshold = 0.01 -- or just what one tensor reached
        for _, s in ipairs(program:stats()) do
          if promoted[s.role] and s.overflow > 0 and draw(3) == 1 then threshold = s.overflow / s.elements end
        end
        for _, s in ipairs(program:stats()) do
          before[s.operator .. s.role] = { a:get(s.operator, s.role) }
          local is_low = select(2, a:get(s.operator, s.role))
          if promoted[s.role] and is_low and s.overflow / s.elements >= threshold then
            expected[s.operator .. s.role], promoted[s.role] = true, promoted[s.role] + 1
          end
        end
        local found = {}
        for _, t in ipairs(program:promote(threshold)) do found[t.operator .. t.role] = true end
        assert.same(expected, found)
        for _, op in ipairs(graph:operators()) do
          for _, role in ipairs { "v", "dv", "theta", "dtheta" } do
            local now, was = { a:get(op.index, role) }, before[op.index .. role]
            if expected[op.index .. role] then
              assert.same({ "FP(6,9,0)", false }, { now[1], now[2] })
            elseif was then
              assert.same(was, now)
            end
          end
        end
        assert.equal(next(expected) == nil, a:ratios().ratio_lo == ratio)
        assert.is_true(a:ratios().ratio_lo <= ratio)
      end
    end)
    assert.is_true(promoted.v > 20 and promoted.theta > 20) -- or the property says little
  end)
end)
