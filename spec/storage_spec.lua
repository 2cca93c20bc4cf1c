-- Packed storage: values kept in their formats' bits give the same training, bit for bit, in the memory that was planned.
local core = require "mptl.core"
local net = require "support.network"
local precision = require "mptl.precision"
local script = require "mptl.script"
local storage = require "support.storage"

local same, images_of = storage.same, storage.images_of
local steps = os.getenv "MPTL_SPEC_DEVICE" and 4 or 20 -- which may be a device whose kernels run on the host, slowly

describe("packed storage gives the bits of emulated storage", function()
  for _, network in ipairs { "tiny_resnet", "tiny_mixture", "tiny_layernorms" } do
    local graph = net[network]()

    for _, name in ipairs(precision.names) do
      it("after " .. steps .. " steps of " .. network .. " under " .. name, function()
        local function plan() return precision.plan(precision.named(name), graph, 7) end
        same(graph, plan, steps, 7, { 3, 8, 8 }, { storage = "packed" }, { storage = "emulated" })
      end)
    end

    it("in formats of 4 to 32 bits, with stochastic rounding, and promotions that change all sizes: " .. network, function()
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
      same(graph, plan, steps, 6, { 3, 8, 8 }, { storage = "packed", rounding = "stochastic", seed = 9 },
        { storage = "emulated", rounding = "stochastic", seed = 9 })
    end)

    for _, name in ipairs { "uniform_low", "fp32" } do
      it(("whether operators are fused or each stores its output: %s, %s"):format(network, name), function()
        local function plan() return precision.plan(precision.named(name), graph, 7) end
        same(graph, plan, 5, 7, { 3, 8, 8 }, {}, { keep_all = true })
      end)
    end
  end

  -- The ReLU behind the first batch norm gets a sum of two gradients. Its own gradient overflows in all tiles, in some, in none.
  it("also for the statistics of gradients that overflow", function()
    local graph, batch = net.tiny_resnet(), 100
    local images, labels = images_of(batch, { 3, 8, 8 })
    local bn = 2
    assert.equal("bn1", graph:operators()[bn + 1].name)
    local function count(bias, options)
      local plan = precision.plan(precision.named "uniform_low", graph, batch)
      plan.assignment:set(bn, "dv", ("FP(5,2,%d)"):format(bias))
      local program = core.program(core.model(graph, { seed = 3 }), plan.assignment, options)
      program:forward(images, labels)
      program:backward(1)
      local seen, overflows = {}, nil
      for _, s in ipairs(program:stats()) do
        if s.operator == bn and (s.role == "dv" or s.role == "dtheta") then
          seen[#seen + 1] = ("%s %d %d %d %d %d %a"):format(s.role, s.elements, s.underflow, s.overflow,
            s.inf_in, s.nan_in, s.max_abs)
          if s.role == "dv" then overflows = s.overflow end
        end
      end
      return table.concat(seen, "\n"), overflows
    end
    local few = 0
    for bias = 25, 34 do
      local packed, overflows = count(bias, { storage = "packed" })
      assert.equal(count(bias, { storage = "emulated" }), packed)
      if overflows > 0 and overflows < 20 then few = few + 1 end
    end
    assert.is_true(few > 0)
  end)
end)

describe("memory", function()
  -- The memory of a step, as planned and as counted: bytes in addition to those before.
  local function measure(policy, kind, batch)
    local cfg = script.configure("resnet18_cifar", { width = 0.25, batch = batch, policy = policy, dataset = "synthetic" })
    local graph = script.record(cfg)
    local plan = script.plan(cfg, graph)
    collectgarbage()
    collectgarbage()
    local before = core.memory()
    core.memory_reset_peak()
    local images = core.tensor { batch, 32, 32, 3 }
    local model = core.model(graph, { seed = 1 })
    local program = core.program(model, plan.assignment, { storage = kind })
    local _, peak = core.memory()
    assert.equal(batch * 3072, images:numel())
    return core.predict_memory(plan.assignment, { storage = kind }), peak - before, program:memory()
  end

  for _, policy in ipairs { "fp32", "demotion", "uniform_low" } do
    for _, kind in ipairs { "packed", "emulated" } do
      it("is what was planned within 2 %: " .. policy .. ", " .. kind, function()
        local planned, measured, memory = measure(policy, kind, 32)
        assert.equal(planned.total, memory.total)
        assert.near(1, measured / planned.total, 0.02)
      end)
    end
  end

  it("that is kept from forward to backward has the formats' size", function()
    local fp32, low = measure("fp32", "packed", 32), measure("uniform_low", "packed", 32)
    assert.is_true(low.saved < 0.26 * fp32.saved)
    assert.equal(fp32.saved, (measure("uniform_low", "emulated", 32)).saved)
  end)

  it("of an operator's input is reused for its output, if nothing else reads the input", function()
    local g = core.graph()
    local x = g:add("conv2d", "conv", { g:input { 1, 8, 8 } }, { out = 4, kernel = 1 })
    x = g:add("avgpool", "pool", { g:add("relu", "relu", { x }) }, { kernel = 8, stride = 8 })
    g:add("nll_loss", "loss", { g:flatten(x) })
    local program = core.program(core.model(g), core.assignment(g, 1, net.fp32), { train = false })
    -- the image of 256 bytes and the convolution's output of 1024, which the ReLU overwrites
    assert.equal(256 + 1024, program:memory().arena)
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

  it("refuses an unknown storage", function()
    assert.has_error(function() core.predict_memory(core.assignment(net.tiny_resnet(), 1, net.fp32), { storage = "compact" }) end,
      "storage: compact, accepted are packed, emulated")
  end)
end)
