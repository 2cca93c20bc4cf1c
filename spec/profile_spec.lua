local core = require "mptl.core"
local net = require "support.network"
local profile = require "mptl.profile"

describe("profile", function()
  local graph, batch = net.tiny_resnet(), 4
  local operators = graph:operators()

  -- A program whose every operator took 1 ms forward and 2 ms backward.
  local function fake()
    local times = {}
    for i, op in ipairs(operators) do times[i] = { operator = op.index, forward = 0.001, backward = 0.002 } end
    return { times = function() return times end }
  end

  it("gives the means of the steps, and what share of them the operators explain", function()
    local p = profile.create(graph, batch)
    p:add(fake(), 0.004 * #operators)
    p:add(fake(), 0.002 * #operators)
    local rows, explained = p:table()
    assert.equal(#operators, #rows)
    assert.near(1, explained, 1e-9)
    assert.near(1, rows[2].forward_ms, 1e-9)
    assert.near(2, rows[2].backward_ms, 1e-9)
    assert.near(1 / #operators, rows[2].share, 1e-9)
  end)

  it("counts arithmetic and memory traffic", function()
    local p = profile.create(graph, batch)
    p:add(fake(), 1)
    local rows, by_name = p:table(), {}
    for _, row in ipairs(rows) do by_name[row.operator] = row end
    -- conv1: 3x3, 3 to 3 channels on 8x8: forward and the gradient of its weights, none of the images
    assert.near(1e-9 * 2 * 2 * batch * 64 * 3 * 27 / 0.003, by_name.conv1.gflop_per_s, 1e-9)
    -- a later one has the gradient of its input, too
    assert.near(1e-9 * 3 * 2 * batch * 64 * 3 * 27 / 0.003, by_name["layer1.0.conv1"].gflop_per_s, 1e-9)
    -- relu: reads and writes forward; backward reads dy and the output, writes dx
    assert.near(1e-9 * 5 * 4 * batch * 192 / 0.003, by_name.relu.gb_per_s, 1e-9)
  end)

  it("explains nearly all of a real step", function()
    local model = core.model(graph, { seed = 1 })
    local program = core.program(model, core.assignment(graph, batch, net.fp32))
    local p, images = profile.create(graph, batch), core.tensor { batch, 8, 8, 3 }
    for step = 1, 3 do
      local from = core.time()
      program:step(images, { 0, 1, 2, 3 }, { step = step, lr = 0.1 })
      p:add(program, core.time() - from)
    end
    local _, explained = p:table()
    assert.is_true(explained > 0.2 and explained <= 1) -- a step of microseconds: the calls weigh in
    assert.matches("operators explain %d+%.%d%% of", p:text())
  end)
end)
