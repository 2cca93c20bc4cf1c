-- FP(e,m,auto) in programs: every rounding takes its bias shift from the values that it is about to round. A training against
-- independent arithmetic is in low_precision_spec.lua.
local core = require "mptl.core"
local exact = require "support.exact"
local isas = require "support.isas"
local net = require "support.network"
local precision = require "mptl.precision"
local runs = require "support.runs"
local storage = require "support.storage"

--- The shift by its definition: the largest b for which 2^(2^(e-1)-b), where the top binade begins, is at least the magnitude.
local function shift_for(e, largest)
  local b, size = 127, math.max(largest, 2.0 ^ -100)
  while b > -127 and 2.0 ^ (2 ^ (e - 1) - b) < size do b = b - 1 end
  return b
end

local made = {} -- formats of support.exact, by name: those of 16 bits take a while to make

local function exact_format(e, m, b)
  local name = ("FP(%d,%d,%d)"):format(e, m, b)
  made[name] = made[name] or exact.format(e, m, b)
  return made[name]
end

local function uniform(format)
  local side = { v = format, dv = format, theta = format, dtheta = format }
  return { high = side, low = side }
end

local function stats_of(program, operator, role)
  for _, s in ipairs(program:stats()) do
    if s.operator == operator and s.role == role then return s end
  end
end

describe("FP(e,m,auto)", function()
  -- A batch of one image, rounded as the output of the input operator.
  local function round_images(values, e, m, mode)
    local g = core.graph()
    g:add("nll_loss", "loss", { g:add("linear", "fc", { g:input { #values } }, { out = 2 }) })
    local assignment = core.assignment(g, 1, uniform(("FP(%d,%d,auto)"):format(e, m)))
    local program = core.program(core.model(g), assignment, { train = false, keep_all = true, rounding = mode })
    program:forward(core.tensor({ 1, #values }, values), { 0 })
    return program:read(0):totable(), stats_of(program, 0, "v")
  end

  local largest = { 1.0, 1 - 2.0 ^ -24, 1 + 2.0 ^ -23, 1.9, 448, 2.0 ^ 127, 1.5 * 2.0 ^ -100, 2.0 ^ -126, 2.0 ^ -149, 0 }

  for _, mode in ipairs { "nearest_even", "nearest_away", "toward_zero", "up", "down" } do
    it("is fitted to the largest magnitude, which then never overflows: " .. mode, function()
      for _, f in ipairs { { 4, 3 }, { 5, 2 }, { 1, 0 }, { 1, 4 }, { 2, 1 }, { 3, 0 }, { 6, 9 }, { 8, 7 }, { 7, 0 } } do
        local e, m = f[1], f[2]
        for _, max in ipairs(largest) do
          local values = {}
          for i, x in ipairs(net.numbers(24, 7)) do values[i] = exact.value(exact.bits(x * x * x * max)) end
          values[3], values[8] = -max, max * 2.0 ^ -(2 ^ e)
          local got, stats = round_images(values, e, m, mode)
          local want = exact_format(e, m, shift_for(e, max))
          local what = ("FP(%d,%d,auto) of %a"):format(e, m, max)
          assert.same({ want.b }, stats.shifts, what)
          assert.equal(0, stats.overflow, what)
          for i, x in ipairs(values) do
            x = exact.value(exact.bits(x))
            assert.equal(exact.round(x, want, mode, "saturate"), got[i], ("%s: %a"):format(what, x))
          end
        end
      end
    end)
  end

  it("ignores infinities and NaN", function()
    local got, stats = round_images({ math.huge, 3.0, -math.huge, 0 / 0, 0.3 }, 4, 3, "nearest_even")
    assert.same({ 6 }, stats.shifts)
    assert.same({ 7.5, 3.0, -7.5, 0.3125 }, { got[1], got[2], got[3], got[5] })
    assert.is_true(got[4] ~= got[4] or math.abs(got[4]) == 7.5) -- packed codes have no NaN
    assert.same({ 2, 1, 3.0 }, { stats.inf_in, stats.nan_in, stats.max_abs })
  end)

  it("gives each parameter, and each gradient that is sent to a value, its own shift", function()
    local g = core.graph()
    local x = g:add("relu", "x", { g:input { 1, 1, 1 } })
    local a = g:add("conv2d", "a", { x }, { out = 1 })
    local b = g:add("conv2d", "b", { x }, { out = 1, bias = false })
    local set_head, labels = net.cotangent_head(g, g:add("add", "add", { a, b }), 1, { 1 })
    local model = core.model(g)
    set_head(model)
    model:tensor("a.weight"):fill(40)
    model:tensor("a.bias"):fill(2 ^ -20)
    model:tensor("b.weight"):fill(2 ^ -10)
    local program = core.program(model, core.assignment(g, 1, uniform "FP(4,3,auto)"), { keep_all = true })
    program:forward(core.tensor({ 1, 1, 1, 1 }, { 1 }), labels)
    program:backward(1)
    assert.same({ 8 - 6, 8 + 20 }, stats_of(program, 2, "theta").shifts)
    assert.same({ 8, 8 }, stats_of(program, 2, "dtheta").shifts)
    assert.same({ 8 - 6, 8 + 10 }, stats_of(program, 1, "dv").shifts) -- the consumers in graph order
    assert.equal(40 + 2 ^ -10, program:read(1, "gradient"):get(1)) -- the sum is not rounded
    assert.same({ 8 }, stats_of(program, 6, "dv").shifts)
    assert.is_nil(stats_of(program, 0, "dv"))
  end)

  it("finds new shifts in every step, and does not change other formats", function()
    local g = core.graph()
    g:add("nll_loss", "loss", { g:add("linear", "fc", { g:input { 2 } }, { out = 2 }) })
    local assignment = core.assignment(g, 1, net.hfp8)
    assignment:set(0, "v", "FP(4,3,auto)")
    local program = core.program(core.model(g), assignment)
    for _, n in ipairs { 3, -2, 9 } do
      program:forward(core.tensor({ 1, 2 }, { 2.0 ^ n, 0 }), { 0 })
      assert.same({ 8 - n }, stats_of(program, 0, "v").shifts)
      assert.is_nil(stats_of(program, 1, "theta").shifts)
    end
  end)

  it("fits the operators of a stage in their order: none cuts off values that the next one uses", function()
    local g = core.graph()
    local r = g:add("relu", "relu", { g:input { 4, 2, 2 } })
    local x = r
    for i = 1, 5 do x = g:add("add", "add" .. i, { x, r }) end
    g:add("nll_loss", "loss", { g:add("linear", "fc", { g:flatten(x) }, { out = 2 }) })
    local program = core.program(core.model(g), core.assignment(g, 1, uniform "FP(3,4,auto)"))
    local values = {}
    for i = 1, 16 do values[i] = 1024 * i end -- FP(3,4,0) ends at 31
    program:forward(core.tensor({ 1, 2, 2, 4 }, values), { 1 })
    program:backward(2 ^ 20)
    for i = 1, 5 do
      local v, dv = stats_of(program, 1 + i, "v"), stats_of(program, 1 + i, "dv")
      assert.same({ { shift_for(3, v.max_abs) }, 0 }, { v.shifts, v.overflow })
      assert.same({ { shift_for(3, dv.max_abs) }, 0 }, { dv.shifts, dv.overflow })
      assert.equal((i + 1) * 2.0 ^ 14, v.max_abs)
      assert.is_true(dv.max_abs > 1000)
    end
  end)

  it("is fitted to the values of the whole stage, however many tiles it has", function()
    for _, all in ipairs { true, false } do -- else only one operator inside of the stage
      local g = core.graph()
      local r = g:add("relu", "relu", { g:input { 4, 64, 64 } })
      local x = r
      for i = 1, 3 do x = g:add("add", "add" .. i, { x, r }) end
      g:add("nll_loss", "loss", { g:add("linear", "fc", { g:flatten(x) }, { out = 2 }) })
      local assignment = core.assignment(g, 1, uniform(all and "FP(3,4,auto)" or "FP(6,9,0)"))
      for _, role in ipairs { "v", "dv" } do assignment:set(3, role, "FP(3,4,auto)") end
      local values = { 1024 } -- in the first tile; FP(3,4,0) ends at 31
      for i = 2, 4 * 64 * 64 do values[i] = 2.0 ^ -10 end
      local program = core.program(core.model(g), assignment)
      for _ = 1, 2 do
        program:forward(core.tensor({ 1, 64, 64, 4 }, values), { 1 })
        program:backward(2 ^ 20)
        for _, role in ipairs { "v", "dv" } do
          local s = stats_of(program, 3, role)
          assert.same({ { shift_for(3, s.max_abs) }, 0 }, { s.shifts, s.overflow })
        end
        assert.equal(3 * 1024, stats_of(program, 3, "v").max_abs)
      end
    end
  end)

  it("counts as 1+e+m bits, and is printed as it was written", function()
    local plan = precision.plan(precision.uniform "fp(4,3,AUTO)", net.tiny_resnet(), 7)
    assert.equal("FP(4,3,auto)", plan.graph:operator("conv1").theta.format)
    local eight = precision.plan(precision.uniform "FP(4,3,0)", net.tiny_resnet(), 7)
    assert.equal(eight.graph:ratios().bits_now, plan.graph:ratios().bits_now)
    local options = { storage = "packed" }
    assert.equal(core.predict_memory(eight.assignment, options).saved, core.predict_memory(plan.assignment, options).saved)
  end)

  it("multiplies in bf16 only where that is exact, which depends on the shifts of the step", function()
    local g, labels = core.graph(), {}
    g:add("nll_loss", "loss", { g:add("linear", "fc", { g:input { 64 } }, { out = 16, bias = false }) })
    local model, assignment = core.model(g), core.assignment(g, 16, uniform "FP(5,3,auto)")
    assignment:set(1, "v", "fp32")
    for i = 1, 16 do labels[i] = i - 1 end
    local function outputs(program, scale)
      local images = core.tensor { 16, 64 }
      for i = 1, 1024 do images:set(i, 2.0 ^ (-4 * (i % 8)) * scale) end
      for i = 1, 1024 do model:tensor("fc.weight"):set(i, math.sin(i) * scale) end
      program:forward(images, labels)
      return program:read(1):totable()
    end
    local f32 = core.program(model, assignment, { train = false, compute = "f32" })
    local narrow = core.program(model, assignment, { train = false, compute = "narrow" })
    net.assert_close(outputs(f32, 1), outputs(narrow, 1), 1e-6, "outputs")
    assert.same(outputs(f32, 2.0 ^ -56), outputs(narrow, 2.0 ^ -56)) -- bf16 units treat products below 2^-126 as zero
    net.assert_close(outputs(f32, 1), outputs(narrow, 1), 1e-6, "outputs")
  end)
end)

describe("training in FP(e,m,auto)", function()
  local sets = {
    narrow = {
      high = "FP(6,9,auto)", low = { v = "FP(3,3,auto)", dv = "FP(5,2,auto)", theta = "FP(4,3,auto)", dtheta = "FP(6,9,auto)" },
    },
    mixed = { high = "FP(6,9,0)", low = { v = "FP(4,3,auto)", dv = "FP(5,2,0)", theta = "FP(4,3,4)", dtheta = "FP(5,6,auto)" } },
    wide = {
      high = "FP(8,23,auto)",
      low = { v = "FP(8,7,auto)", dv = "FP(8,23,auto)", theta = "FP(8,12,auto)", dtheta = "FP(1,14,auto)" },
    },
    -- values in binary32: a ReLU's backward does not read its output
    gradients = { high = "fp32", low = { v = "fp32", dv = "FP(5,2,auto)", theta = "FP(4,3,4)", dtheta = "FP(6,9,0)" } },
  }

  -- Trainings with the program options a and b give the same bits.
  local function same(network, set, policy, a, b)
    local graph = net[network]()
    local function plan() return precision.plan(precision[policy] { formats = sets[set], threshold = 0.01 }, graph, 7) end
    storage.same(graph, plan, 5, 7, { 3, 8, 8 }, a, b)
  end

  for _, network in ipairs { "tiny_resnet", "tiny_mixture", "tiny_layernorms" } do
    for set in pairs(sets) do
      for mode, policy in pairs { nearest_even = "uniform_low", stochastic = "demotion" } do
        local function with(options)
          options.rounding, options.seed = mode, 5
          return options
        end

        it(("is the same packed and emulated: %s, %s, %s"):format(network, set, mode), function()
          same(network, set, policy, with { storage = "packed" }, with { storage = "emulated" })
        end)

        it(("is the same fused and operator by operator: %s, %s, %s"):format(network, set, mode), function()
          same(network, set, policy, with {}, with { keep_all = true })
        end)
      end
    end

    it("is the same on every instruction set: " .. network, function()
      finally(function() core.isa "auto" end)
      local graph, logs = net[network](), {}
      local images, labels = storage.images_of(7, { 3, 8, 8 })
      for i, isa in ipairs(isas) do
        core.isa(isa)
        local model = core.model(graph, { seed = 3 })
        local plan = precision.plan(precision.uniform_low { formats = sets.narrow }, graph, 7)
        local program = core.program(model, plan.assignment, { compute = "f32" })
        for step = 1, 3 do program:step(images, labels, { step = step, lr = 0.05, loss_scale = 256 }) end
        logs[i] = {}
        for k, s in ipairs(program:stats()) do
          logs[i][k] = ("%d %s %s %d %a"):format(s.operator, s.role, table.concat(s.shifts, ","), s.underflow, s.max_abs)
        end
        for _, name in ipairs(model:names()) do table.insert(logs[i], model:tensor(name):tostring()) end
      end
      for i = 2, #isas do assert.same(logs[1], logs[i], isas[i]) end
    end)
  end
end)

describe("a run in FP(e,m,auto)", function()
  local formats = "FP(6,9,auto)/v=FP(3,3,auto),dv=FP(5,2,auto),theta=FP(4,3,auto),dtheta=FP(6,9,auto)"
  local train = ("train tiny.lua --quiet --tensors-every 2 --formats '%s' --out "):format(formats)
  local dir

  setup(function()
    dir = runs.directory()
    assert.equal(0, (runs.mptl(dir, train .. "whole")))
  end)
  teardown(function() runs.remove(dir) end)

  local function assert_same(name)
    for _, file in ipairs { "tensors.jsonl", "last.safetensors", "best.safetensors" } do
      assert.is_true(runs.same_files(dir .. "/whole/" .. file, dir .. "/" .. name .. "/" .. file), file)
    end
  end

  it("writes the shifts", function()
    local lines = runs.slurp(dir .. "/whole/tensors.jsonl")
    assert.matches('"operator":"0","role":"theta","format":"FP%(6,9,auto%)","shifts":%[%-?%d+%],"elements":192,', lines)
    assert.matches('"operator":"4","role":"dtheta","format":"FP%(6,9,auto%)","shifts":%[%-?%d+,%-?%d+%]', lines)
  end)

  it("continues after an interruption and writes the same files", function()
    assert.equal(130, (runs.mptl(dir, train .. "again", "KILL=4")))
    assert.equal(0, (runs.mptl(dir, train .. "again --resume")))
    assert_same "again"
  end)

  it("is the same in emulated storage", function()
    assert.equal(0, (runs.mptl(dir, train .. "emulated --storage emulated")))
    assert.is_true(runs.same_files(dir .. "/whole/tensors.jsonl", dir .. "/emulated/tensors.jsonl"))
  end)
end)
