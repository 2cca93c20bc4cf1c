local core = require "mptl.core"
local json = require "mptl.json"
local net = require "support.network"
local precision = require "mptl.precision"
local profile = require "mptl.profile"

describe("profile", function()
  local graph, batch = net.tiny_resnet(), 4
  local plan = precision.plan(precision.fp32(), graph, batch)
  local peaks = { f32_gflop_per_s = 1, bf16_gflop_per_s = 2, copy_gb_per_s = 1 }
  local program = core.program(core.model(graph, { seed = 1 }), plan.assignment)

  local function create(p, compute)
    return profile.create(graph, p or plan, { compute = compute or "auto", peaks = peaks, optimizer = "sgd" })
  end

  -- The program, with invented times: every stage took 1 ms forward and 2 ms backward, the update 3 ms.
  local function fake(products)
    local costs = program:costs()
    for i, cost in ipairs(costs) do
      cost.forward, cost.backward = cost.stage == i - 1 and 0.001 or 0.0, cost.stage == i - 1 and 0.002 or 0.0
    end
    costs.update = 0.003
    return { costs = function() return costs end, products = function() return products or {} end }
  end

  local function by_name(p)
    local rows = {}
    for _, row in ipairs((p:table())) do rows[row.operator] = row end
    return rows
  end

  it("gives the means of the steps by stage, and what share of them the rows explain", function()
    local p = create()
    -- 6 batch norms and 2 additions are part of a ReLU's stage; one row is the update
    local stages = #plan.graph:operators() - 8
    p:add(fake(), 0.003 * (stages + 1))
    p:add(fake(), 0.003 * (stages + 1))
    local rows, explained = p:table()
    assert.equal(stages + 1, #rows)
    assert.near(1, explained, 1e-9)
    assert.near(1, rows[2].forward_ms, 1e-9)
    assert.near(2, rows[2].backward_ms, 1e-9)
    assert.near(1 / (stages + 1), rows[2].share, 1e-9)
    assert.equal("batchnorm2d+relu", by_name(p).relu.kind)
    assert.equal("batchnorm2d+add+relu", by_name(p)["layer1.0.relu_2"].kind)
    assert.near(3, by_name(p).update.forward_ms, 1e-9)
  end)

  it("counts arithmetic and memory traffic, and how long they take at the peaks", function()
    local p = create()
    p:add(fake(), 1)
    local rows = by_name(p)
    -- conv1: 3x3, 3 to 3 channels on 8x8: forward and the gradient of its weights, none of the images
    local flop = 2 * batch * 64 * 3 * 27
    assert.near(1e-9 * 2 * flop / 0.003, rows.conv1.gflop_per_s, 1e-9)
    assert.near(1000 * 2 * flop / 1e9, rows.conv1.floor_ms, 1e-9)
    -- a later one has the gradient of its input, too
    assert.near(1e-9 * 3 * flop / 0.003, rows["layer1.0.conv1"].gflop_per_s, 1e-9)
    -- batch norm and relu: conv1's output and the vectors in, the ReLU's out; backward the ReLU's gradient and output and conv1's
    -- output in, conv1's gradient out, and the parameters and their gradients
    local values, theta = 4 * batch * 192, 4 * (3 + 3 + 3 + 3)
    assert.near(1e-9 * (2 * values + theta + 4 * values + 2 * theta) / 0.003, rows.relu.gb_per_s, 1e-9)
    assert.near(1000 * (6 * values + 3 * theta) / 1e9, rows.relu.floor_ms, 1e-9)
    assert.near(rows.relu.floor_ms / 3, rows.relu.floor_share, 1e-9)
  end)

  it("takes the types that the formats multiply in", function()
    if core.compute("FP(4,3,4)", "FP(4,3,4)") ~= "bf16" then return pending "no bf16 units here" end
    -- conv1 has 81 parameters: too few for bf16 under auto
    for compute, flop_per_s in pairs { auto = 1e9, narrow = 2e9 } do
      local p = create(precision.plan(precision.named "uniform_low", graph, batch), compute)
      p:add(fake(), 1)
      assert.near(1000 * 2 * (2 * batch * 64 * 3 * 27) / flop_per_s, by_name(p).conv1.floor_ms, 1e-9)
    end
  end)

  it("says how the device's library multiplies, if the library reports it", function()
    local conv1
    for _, op in ipairs(plan.graph:operators()) do conv1 = op.name == "conv1" and op.index or conv1 end
    local p = create()
    p:add(fake { { operator = conv1, pass = "forward", type = "f32", engine = "engine 28", workspace_bytes = 0 } }, 1)
    p:add(fake { -- the last step's
      { operator = conv1, pass = "forward", type = "bf16", engine = "cuDNN engine 7", workspace_bytes = 2560000 },
      { operator = conv1, pass = "backward weights", type = "tf32", engine = "cuDNN engine 40", workspace_bytes = 0 },
    }, 1)
    local rows = by_name(p)
    assert.is_nil(rows.relu.products)
    assert.equal('[{"pass":"forward","type":"bf16","engine":"cuDNN engine 7","workspace_bytes":2560000},'
      .. '{"pass":"backward weights","type":"tf32","engine":"cuDNN engine 40","workspace_bytes":0}]',
      json.encode(rows.conv1.products))
    local text = p:text()
    assert.matches("\noperator +product +type +workspace MB +engine\nconv1 +forward +bf16 +2%.56 +cuDNN engine 7\n", text)
    assert.matches("conv1 +backward weights +tf32 +0%.00 +cuDNN engine 40\n$", text)
    p:add(fake {}, 1)
    assert.is_nil(p:text():find("workspace MB", 1, true))
    assert.same({}, program:products()) -- the CPU reports none
  end)

  it("explains nearly all of a real step", function()
    local p, images = create(), core.tensor { batch, 8, 8, 3 }
    for step = 1, 3 do
      local from = core.time()
      program:step(images, { 0, 1, 2, 3 }, { step = step, lr = 0.1 })
      p:add(program, core.time() - from)
    end
    local _, explained = p:table()
    assert.is_true(explained > 0.2 and explained <= 1) -- a step of microseconds: the calls weigh in
    assert.matches("these rows explain %d+%.%d%% of", p:text())
  end)
end)

describe("core.peaks", function()
  it("measures the machine's peaks", function()
    local peaks = core.peaks { threads = 1, seconds = 0.02 }
    assert.is_true(peaks.copy_gb_per_s > 0.1 and peaks.f32_gflop_per_s > 0.1)
    assert.equal(core.compute("FP(4,3,4)", "FP(4,3,4)") == "bf16", peaks.bf16_gflop_per_s ~= nil)
  end)

  it("does not change the number of threads and the memory in use", function()
    local threads, memory = core.threads(), core.memory()
    core.peaks { threads = 2, seconds = 0.001 }
    assert.equal(threads, core.threads())
    assert.equal(memory, (core.memory()))
  end)
end)
