-- The gradient error against independent arithmetic: on numbers, on a network of two weights, on the checkpoint of a run.
local checkpoint = require "mptl.checkpoint"
local core = require "mptl.core"
local data = require "mptl.data"
local gradient_error = require "mptl.measure.gradient_error"
local json = require "mptl.json"
local net = require "support.network"
local nn = require "mptl.nn"
local optim = require "mptl.optim"
local precision = require "mptl.precision"
local rounding = require "support.exact"
local runs = require "support.runs"
local script = require "mptl.script"

-- Sums of |y| and of |x - y|.
local function difference(x, y)
  local d = { size = 0, absolute = 0 }
  for i = 1, #x do d.size, d.absolute = d.size + math.abs(y[i]), d.absolute + math.abs(x[i] - y[i]) end
  return d
end

-- SGD's update before it is multiplied by the learning rate, in binary64: method.md 5.
local function update_of(g, p, buf, sgd, first)
  local u = {}
  for i = 1, #g do
    local d = g[i] + sgd.weight_decay * p[i]
    u[i] = first and d or sgd.momentum * buf[i] + d
  end
  return u
end

local function scaled(list, factor)
  local result = {}
  for i, x in ipairs(list) do result[i] = factor * x end
  return result
end

describe("compare_gradients", function()
  local n = 5000 -- more than are processed at a time
  local g, r, p, buf = net.numbers(n, 1), net.numbers(n, 2), net.numbers(n, 3), net.numbers(n, 4)
  local function tensor(list) return core.tensor({ #list }, list) end

  for _, first in ipairs { true, false } do
    it("is the arithmetic of SGD, " .. (first and "at the first update" or "with momentum"), function()
      local sgd = { momentum = 0.9, weight_decay = 0.25, loss_scale = 64 }
      local gradient, update = core.compare_gradients({
        gradient = tensor(scaled(g, 64)), reference = tensor(r), parameter = tensor(p), momentum = tensor(buf),
      }, { update = sgd, updates = first and 0 or 3 })
      local want = difference(g, r)
      assert.near(want.size, gradient.size, 1e-9 * want.size)
      assert.near(want.absolute, gradient.absolute, 1e-9 * want.absolute)
      want = difference(update_of(g, p, buf, sgd, first), update_of(r, p, buf, sgd, first))
      assert.near(want.size, update.size, 1e-6 * want.size)
      assert.near(want.absolute, update.absolute, 1e-6 * want.absolute)
    end)
  end

  it("does not change its arguments", function()
    local t = { gradient = tensor(g), reference = tensor(r), parameter = tensor(p), momentum = tensor(buf) }
    local before = {}
    for name, x in pairs(t) do before[name] = x:tostring() end
    core.compare_gradients(t, { update = { momentum = 0.9, weight_decay = 0.1 } })
    for name, x in pairs(t) do assert.equal(before[name], x:tostring()) end
  end)

  it("names wrong arguments", function()
    local one, two = tensor { 1 }, tensor { 1, 2 }
    assert.has_error(function() core.compare_gradients({ gradient = one, reference = one, parameter = one }, {}) end,
      "compare_gradients: momentum must be a tensor")
    assert.has_error(function()
      core.compare_gradients({ gradient = one, reference = two, parameter = one, momentum = one }, {})
    end, "compare_gradients: reference has 2 elements, gradient has 1")
    assert.has_error(function()
      core.compare_gradients({ gradient = one, reference = one, parameter = one, momentum = one },
        { update = { loss_scale = 0 } })
    end, "loss scale: 0, must be above 0")
  end)
end)

-- A trainer by hand, with what the measure asks of one: a network, a plan, 16 images of the synthetic set in batches of 8.
local function trainer(model, policy, scale)
  local set = data.open { dataset = "synthetic", limit_train = 16, limit_test = 1 }
  local graph = nn.record(model, { input = { 3, 32, 32 }, classes = 10, cfg = {} })
  local t = {
    cfg = { batch = 8, seed = 7 }, data = set, graph = graph, model = core.model(graph, { seed = 5 }),
    plan = precision.plan(policy, graph, 8), fp32_plan = precision.plan(precision.fp32(), graph, 8),
    optimizer = optim.sgd { momentum = 0.9, weight_decay = 0.01 }, scale = { scale = scale },
    workspace = core.workspace(),
  }
  function t:compile(assignment, n, train)
    return core.program(self.model, assignment, { batch = n, train = train, seed = 7, workspace = self.workspace })
  end
  t.program = t:compile(t.plan.assignment, 8, true)
  return t
end

local function small()
  return nn.Sequential {
    nn.Conv2d { 3, 4, kernel = 4, stride = 4 }, nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.25), nn.Flatten(),
    nn.Linear { 256, 10 },
  }
end

describe("the gradient error", function()
  it("is the rounding error when only the gradient of the parameters is rounded", function()
    local t = trainer(nn.Sequential { nn.AvgPool2d(32), nn.Flatten(), nn.Linear { 3, 10 } }, precision.fp32(), 16)
    t.plan.assignment:set(2, "dtheta", "FP(5,2,0)") -- input, pool, linear
    local result = gradient_error.create(t, 1):compute()
    -- the model's gradients are binary32's now: rounded while the scale is in them, they are those under the assignment
    for i, name in ipairs { "2.weight", "2.bias" } do
      local exact, rounded = t.model:grad(name):totable(), {}
      for k, x in ipairs(exact) do rounded[k] = (rounding.round(16 * x, rounding.format(5, 2, 0), "nearest_even", "inf")) / 16 end
      local d, p = difference(rounded, exact), result.parameters[i]
      assert.same({ name, #exact }, { p.name, p.numel })
      assert.is_true(d.absolute > 0.01 * d.size)
      assert.near(d.size / #exact, p.gradient.size, 1e-9)
      assert.near(d.absolute / #exact, p.gradient.absolute, 1e-9)
      assert.near(d.absolute / d.size, p.gradient.relative, 1e-9)
    end
    local w, b = result.parameters[1].gradient, result.parameters[2].gradient
    assert.near((30 * w.absolute + 10 * b.absolute) / 40, result.gradient.absolute, 1e-12)
    assert.near((30 * w.absolute + 10 * b.absolute) / (30 * w.size + 10 * b.size), result.gradient.relative, 1e-12)
  end)

  it("is zero in binary32", function()
    local result = gradient_error.create(trainer(small(), precision.fp32(), 1), 2):compute()
    assert.same({ 2, 16, 0 }, { result.batches, result.images, result.skipped })
    for _, p in ipairs { result, table.unpack(result.parameters) } do
      assert.same({ 0, 0, 0, 0 }, { p.gradient.absolute, p.gradient.relative, p.update.absolute, p.update.relative })
      assert.is_true(p.gradient.size > 0 and p.update.size > 0)
    end
  end)

  it("is larger in formats of less precision, and the same under another loss scale", function()
    local function relative(policy, scale)
      return gradient_error.create(trainer(small(), policy, scale), 2):compute().gradient.relative
    end
    local high, low = relative(precision.uniform "FP(6,9,0)", 1024), relative(precision.uniform_low(), 1024)
    assert.is_true(high > 0 and low > 10 * high)
    assert.equal(high, relative(precision.uniform "FP(6,9,0)", 2048))
  end)

  it("does not change the model and is reproducible", function()
    local t = trainer(small(), precision.uniform_low(), 64)
    local images, labels = core.tensor({ 8, 32, 32, 3 }, net.numbers(8 * 3072, 2)), { 1, 2, 3, 4, 5, 6, 7, 8 }
    t.program:step(images, labels, { step = 0, lr = 0.1, momentum = 0.9, weight_decay = 0.01, loss_scale = 64 })
    local function state()
      local texts = { tostring(t.model:updates()) }
      for _, name in ipairs(t.model:names()) do
        texts[#texts + 1] = t.model:tensor(name):tostring()
        if not name:find "running" then texts[#texts + 1] = t.model:state("momentum", name):tostring() end
      end
      return table.concat(texts, "\n")
    end
    local measure, before = gradient_error.create(t, 2), state()
    local first = measure:compute()
    assert.is_true(before == state())
    t.program:forward(images, labels, 5)
    assert.is_false(before == state()) -- the running statistics: the comparison sees them
    assert.same(first, measure:compute())
  end)

  it("does not change the model when it is interrupted", function()
    local t = trainer(small(), precision.uniform_low(), 64)
    local variance = t.model:tensor("1.running_var"):tostring()
    local interrupted, asked = core.interrupted, 0
    core.interrupted = function()
      asked = asked + 1
      return asked > 1
    end
    local ok, result = pcall(function() return gradient_error.create(t, 2):compute() end)
    core.interrupted = interrupted
    assert.same({ true, nil, 2 }, { ok, result, asked })
    assert.equal(variance, t.model:tensor("1.running_var"):tostring())
  end)

  it("is not reported for a gradient that is not finite", function()
    local result = gradient_error.create(trainer(small(), precision.uniform_low(), 2 ^ 40), 2):compute()
    assert.equal(2, result.skipped)
    local line = json.encode(gradient_error.line(3, result))
    assert.matches('^{"epoch":3,"batches":2,"images":16,"skipped":2,"loss_scale":1099511627776.0,'
      .. '"gradient":{"size":null,"absolute":null,"relative":null},"update":{"size":null,"absolute":null,"relative":null},'
      .. '"parameters":%[{"name":"0.weight","numel":192,"gradient":{"size":null,', line)
  end)
end)

describe("the gradient error of a run", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  -- Gradients of the checkpoint's model on the fixed batches, by batch and name, without the loss scale.
  local function gradients(cfg, file, plan, set, scale)
    local graph = script.record(cfg)
    local model = core.model(graph)
    local program = core.program(model, plan(graph).assignment, { rounding = cfg.rounding, seed = cfg.seed })
    checkpoint.load(file, graph, model, true)
    local loader = core.loader(set.train, {
      batch = 16, shuffle = true, drop_last = true, seed = cfg.seed, mean = set.mean, std = set.std,
    })
    loader:start(0)
    local batches = {}
    for i = 1, 2 do
      loader:next()
      program:forward(loader, 2 ^ 32 - i | 0)
      assert.is_true(program:backward(scale))
      batches[i] = {}
      for _, name in ipairs(model:names()) do
        if not name:find "running" then batches[i][name] = scaled(model:grad(name):totable(), 1 / scale) end
      end
    end
    return batches, model
  end

  it("is what independent arithmetic on its checkpoint gives", function()
    runs.spill(dir .. "/tiny.lua", runs.script:gsub("nn.ReLU%(%),", "nn.ReLU(), nn.Dropout(0.2),"):gsub("2 %^ 24", "2 ^ 10"))
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --epochs 2 --quiet --gradient-error 2 --out a")))
    local lines = {}
    for line in runs.slurp(dir .. "/a/gradient_error.jsonl"):gmatch "[^\n]+" do lines[#lines + 1] = json.decode(line) end
    assert.equal(2, #lines)
    local state, file = checkpoint.state(dir .. "/a/last.safetensors")
    local cfg = script.configure(dir .. "/tiny.lua", {})
    local set = data.open { dataset = "synthetic", limit_train = 40, limit_test = 1 }
    local function assigned(graph)
      local plan = script.plan(cfg, graph)
      for i, roles in ipairs(state.formats) do
        for role, f in pairs(roles) do plan.assignment:set(i - 1, role, f[1]) end
      end
      return plan
    end
    local function binary32(graph) return precision.plan(precision.fp32(), graph, 16) end
    local low, model = gradients(cfg, file, assigned, set, state.loss_scale.scale)
    local exact = gradients(cfg, file, binary32, set, 1)

    local last, sgd = lines[2], { momentum = 0.9, weight_decay = 5e-4 }
    assert.same({ 2, 32, 0, state.loss_scale.scale }, { last.batches, last.images, last.skipped, last.loss_scale })
    local all, total = { gradient = { size = 0, absolute = 0 }, update = { size = 0, absolute = 0 } }, 0
    for _, p in ipairs(last.parameters) do
      local sums = { gradient = { size = 0, absolute = 0 }, update = { size = 0, absolute = 0 } }
      local master, buf = model:tensor(p.name):totable(), model:state("momentum", p.name):totable()
      for i = 1, 2 do
        local g, r = low[i][p.name], exact[i][p.name]
        local u, v = update_of(g, master, buf, sgd), update_of(r, master, buf, sgd)
        for what, d in pairs { gradient = difference(g, r), update = difference(u, v) } do
          sums[what].size, sums[what].absolute = sums[what].size + d.size / 2, sums[what].absolute + d.absolute / 2
        end
      end
      assert.equal(#master, p.numel)
      for what, sum in pairs(sums) do
        assert.near(sum.size / p.numel, p[what].size, 1e-6 * sum.size / p.numel, what .. " of " .. p.name)
        assert.near(sum.absolute / p.numel, p[what].absolute, 1e-6 * sum.size / p.numel, what .. " of " .. p.name)
        assert.near(sum.absolute / sum.size, p[what].relative, 1e-6)
        all[what].size, all[what].absolute = all[what].size + sum.size, all[what].absolute + sum.absolute
      end
      total = total + p.numel
    end
    assert.equal(2770, total)
    for what, sum in pairs(all) do
      assert.near(sum.size / total, last[what].size, 1e-6 * sum.size / total)
      assert.near(sum.absolute / total, last[what].absolute, 1e-6 * sum.size / total)
      assert.near(sum.absolute / sum.size, last[what].relative, 1e-6)
    end
    assert.is_true(last.gradient.relative > 0.001)
  end)
end)
