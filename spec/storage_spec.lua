-- Packed storage: values kept in their formats' bits give the same training, bit for bit, in the memory that was planned.
local core = require "mptl.core"
local net = require "support.network"
local precision = require "mptl.precision"
local script = require "mptl.script"

-- Steps of a program with promotion, its loss scale falling and rising as a dynamic one does; results and statistics as text.
local function train(graph, plan, steps, options, images, labels)
  local model = core.model(graph, { seed = 3 })
  local program, log, scale = core.program(model, plan.assignment, options), {}, 2 ^ 16
  for step = 1, steps do
    local update = { step = step, lr = 0.05, momentum = 0.9, weight_decay = 5e-4, loss_scale = scale }
    local result = program:step(images, labels, update)
    log[#log + 1] = ("%a %d %s"):format(result.loss, result.correct, result.applied)
    scale = result.applied and scale or scale / 2
    for _, s in ipairs(result.applied and program:stats() or {}) do
      log[#log + 1] = ("%d %s %d %d %d %a"):format(s.operator, s.role, s.elements, s.underflow, s.overflow, s.max_abs)
    end
    if plan.policy.threshold then
      for _, t in ipairs(program:promote(plan.policy.threshold)) do log[#log + 1] = "promoted " .. t.operator .. t.role end
    end
  end
  return table.concat(log, "\n"), model, program
end

local function images_of(n, input)
  local c, h, w = table.unpack(input)
  local images, numbers = core.tensor { n, h, w, c }, net.numbers(n * c * h * w, 5)
  for i = 1, #numbers do images:set(i, 2 * numbers[i]) end
  local labels = {}
  for i = 1, n do labels[i] = i % 5 end
  return images, labels
end

-- Trains twice and compares everything.
local function same(graph, make_plan, steps, batch, input, a, b)
  local images, labels = images_of(batch, input)
  local log_a, model_a = train(graph, make_plan(), steps, a, images, labels)
  local log_b, model_b = train(graph, make_plan(), steps, b, images, labels)
  assert.is_true(log_a == log_b, "results or statistics differ")
  for _, name in ipairs(model_a:names()) do
    assert.is_true(model_a:tensor(name):tostring() == model_b:tensor(name):tostring(), name .. " differs")
  end
end

describe("packed storage gives the bits of emulated storage", function()
  for _, network in ipairs { "tiny_resnet", "tiny_mixture" } do
    local graph = net[network]()

    for _, name in ipairs(precision.names) do
      it("after 20 steps of " .. network .. " under " .. name, function()
        local function plan() return precision.plan(precision.named(name), graph, 7) end
        same(graph, plan, 20, 7, { 3, 8, 8 }, { storage = "packed" }, { storage = "emulated" })
      end)
    end

    it("in formats of 4 to 32 bits, with stochastic rounding, and promotions that move everything: " .. network, function()
      local formats = { "FP(2,1,1)", "fp8_e5m2", "fp16", "bf16", "FP(8,12,0)", "FP(4,3,120)", "fp32", "FP(4,3,4)" }
      local function plan()
        local p = precision.plan(precision.demotion { ratio = 1, threshold = 1e-3 }, graph, 6)
        for i = 0, #p.graph:operators() - 1 do
          for j, role in ipairs { "v", "dv", "theta", "dtheta" } do
            if i % 3 == j % 3 and p.assignment:get(i, role) then p.assignment:set(i, role, formats[(i + j) % #formats + 1]) end
          end
        end
        return p
      end
      same(graph, plan, 20, 6, { 3, 8, 8 }, { storage = "packed", rounding = "stochastic", seed = 9 },
        { storage = "emulated", rounding = "stochastic", seed = 9 })
    end)

    it("whether operators are fused or each stores its output: " .. network, function()
      local function plan() return precision.plan(precision.named "uniform_low", graph, 7) end
      same(graph, plan, 5, 7, { 3, 8, 8 }, {}, { keep_all = true })
    end)
  end

  for _, model in ipairs(script.models()) do
    for _, policy in ipairs { "fp32", "operator", "demotion", "uniform_low" } do
      it("after 20 steps of " .. model .. " under " .. policy, function()
        local cfg = script.configure(model, { width = 0.125, batch = 4, policy = policy, dataset = "synthetic" })
        local recorded = script.record(cfg)
        same(recorded, function() return script.plan(cfg, recorded) end, 20, 4, cfg.input, { storage = "packed" },
          { storage = "emulated" })
      end)
    end
  end
end)

describe("memory", function()
  -- What a step takes, as planned and as counted: bytes above those before.
  local function measure(policy, storage, batch)
    local cfg = script.configure("resnet18_cifar", { width = 0.25, batch = batch, policy = policy, dataset = "synthetic" })
    local graph = script.record(cfg)
    local plan = script.plan(cfg, graph)
    collectgarbage()
    collectgarbage()
    local before = core.memory()
    core.memory_reset_peak()
    local model = core.model(graph, { seed = 1 })
    local program = core.program(model, plan.assignment, { storage = storage })
    local _, peak = core.memory()
    return core.predict_memory(plan.assignment, { storage = storage }), peak - before, program:memory()
  end

  for _, policy in ipairs { "fp32", "demotion", "uniform_low" } do
    for _, storage in ipairs { "packed", "emulated" } do
      it("is what was planned within 2 %: " .. policy .. ", " .. storage, function()
        local planned, measured, memory = measure(policy, storage, 32)
        assert.equal(planned.total, memory.total)
        assert.near(1, measured / planned.total, 0.02)
      end)
    end
  end

  it("that is kept from forward to backward takes the formats' bits", function()
    local fp32, low = measure("fp32", "packed", 32), measure("uniform_low", "packed", 32)
    assert.is_true(low.saved < 0.26 * fp32.saved)
    assert.equal(fp32.saved, (measure("uniform_low", "emulated", 32)).saved)
  end)

  it("moves when a promotion makes values larger", function()
    local graph = net.tiny_resnet()
    local plan = precision.plan(precision.named "uniform_low", graph, 7)
    local program = core.program(core.model(graph), plan.assignment)
    local images, labels = images_of(7, { 3, 8, 8 })
    local before = program:memory().saved
    plan.assignment:set(1, "v", "FP(6,9,0)") -- conv1's output, which batch norm's backward reads
    program:step(images, labels, { lr = 0.1, loss_scale = 1 })
    assert.equal(before + 7 * 3 * 8 * 8, program:memory().saved)
  end)
end)
