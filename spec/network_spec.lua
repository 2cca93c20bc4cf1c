-- A whole training of two steps against PyTorch's (spec/fixtures/resnet_tiny.lua), in binary32.
local core = require "mptl.core"
local net = require "support.network"

local fixture = require "fixtures.resnet_tiny"
local sgd = fixture.optimizer

describe("network", function()
  it("trains like PyTorch: losses, gradients, parameters, running statistics", function()
    local graph = net.tiny_resnet()
    local model = core.model(graph)
    local images = net.images(fixture.x)
    local n = #fixture.labels
    local assignment = core.assignment(graph, n, net.fp32)
    local program = core.program(model, assignment)
    for name, t in pairs(fixture.parameters) do model:tensor(name):copy(core.tensor(t.dims, t.data)) end

    for i, step in ipairs(fixture.steps) do
      local result = program:step(images, fixture.labels,
        { step = i, lr = sgd.lr, momentum = sgd.momentum, weight_decay = sgd.weight_decay })
      assert.is_true(result.applied)
      assert.near(step.loss, result.loss / n, 2e-6 * step.loss)
      net.assert_close(step.output.data, program:read(#graph:operators() - 2):totable(), 5e-6, "output")
      for name, t in pairs(step.gradients) do
        net.assert_close(t.data, model:grad(name):totable(), 2e-5, "gradient of " .. name)
      end
    end

    local after = fixture.parameters_after or fixture.steps[#fixture.steps].parameters_after
    for name, t in pairs(after) do net.assert_close(t.data, model:tensor(name):totable(), 1e-5, name) end
    local buffers = fixture.buffers_after or fixture.steps[#fixture.steps].buffers_after
    for name, t in pairs(buffers) do
      if not name:find("num_batches") then net.assert_close(t.data, model:tensor(name):totable(), 1e-5, name) end
    end

    local eval = core.program(model, assignment, { train = false })
    eval:forward(images, fixture.labels)
    net.assert_close(fixture.eval_output_after.data, eval:read(#graph:operators() - 2):totable(), 1e-5, "evaluated output")
  end)

  it("computes thousands of pointwise operators in a row", function()
    local g = core.graph()
    local x = g:input { 4 }
    local sum = x
    for i = 1, 8000 do sum = g:add("add", "add" .. i, { sum, g:add("relu", "relu" .. i, { x }) }) end
    g:add("nll_loss", "loss", { sum })
    local program = core.program(core.model(g), core.assignment(g, 1, net.fp32), { input_gradient = true })
    assert.equal(-8001, program:forward(core.tensor({ 1, 1, 1, 4 }, { 1, 0, 0, 0 }), { 0 }).loss)
    program:backward(1)
    assert.same({ -8001, 0, 0, 0 }, program:read(0, "gradient"):totable())
  end)

  it("evaluates part of a batch as it evaluates a whole one", function()
    local graph = net.tiny_resnet()
    local model = core.model(graph, { seed = 1 })
    local program = core.program(model, core.assignment(graph, 4, net.fp32), { train = false })
    local images = net.images(fixture.x)
    local outputs = #graph:operators() - 2
    program:forward(images, fixture.labels)
    local whole = program:read(outputs):totable()
    local part = core.tensor({ 2, 8, 8, 3 }, table.move(images:totable(), 1, 2 * 192, 1, {}))
    local result = program:forward(part, { fixture.labels[1], fixture.labels[2] })
    assert.equal(2, result.count)
    local got = program:read(outputs):totable()
    for i = 1, 10 do assert.equal(whole[i], got[i]) end
  end)

  describe("shares a workspace", function()
    local graph, images = net.tiny_resnet(), net.images(fixture.x)

    local function programs(workspace)
      local model = core.model(graph, { seed = 1 })
      local assignment = core.assignment(graph, 4, net.fp32)
      return core.program(model, assignment, { workspace = workspace }),
        core.program(model, assignment, { train = false, batch = 6, workspace = workspace }), model
    end

    local function train(workspace)
      local program, eval, model = programs(workspace)
      for step = 1, 3 do
        program:step(images, fixture.labels, { step = step, lr = 0.1, momentum = 0.9 })
        eval:forward(images, fixture.labels)
      end
      return model:tensor("linear.weight"):tostring(), program, eval
    end

    it("without changing any number", function()
      assert.equal((train()), (train(core.workspace())))
    end)

    it("and needs memory for one program only", function()
      collectgarbage()
      local before = core.memory()
      local _, p1, e1 = train(core.workspace())
      local shared = core.memory() - before
      local _, p2, e2 = train()
      local separate = core.memory() - before - shared
      assert.is_true(shared < separate - e1:memory().arena / 2)
      assert.equal(p1:memory().total + e1:memory().total, p2:memory().total + e2:memory().total)
    end)

    it("and refuses a backward after another program's forward", function()
      local program, eval = programs(core.workspace())
      program:forward(images, fixture.labels)
      eval:forward(images, fixture.labels)
      assert.has_error(function() program:backward(1) end,
        "backward: another program has used the shared workspace since this one's forward")
    end)
  end)
end)
