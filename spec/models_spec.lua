-- The installed networks: what the method says of each, at every width and number of classes.
local core = require "mptl.core"
local precision = require "mptl.precision"
local script = require "mptl.script"

local function record(model, width, classes)
  return script.record(script.configure(model .. "_cifar",
    { width = width, dataset = classes == 100 and "cifar100" or "cifar10" }))
end

local function count(graph)
  local n = 0
  for _, p in ipairs(graph:parameters()) do
    if not p.buffer then n = n + p.numel end
  end
  return n
end

local function dims(graph, name)
  for _, p in ipairs(graph:parameters()) do
    if p.name == name then return p.dims end
  end
end

-- Groups at width 1, and parameters by width, with 10 classes and with 100: counted in PyTorch models of the same layouts.
local models = {
  squeezenet = {
    groups = 27, [1] = { 734986, 781156 }, [0.5] = { 232202, 278372 }, [0.25] = { 84778, 130948 }, [0.1] = { 36482, 82652 },
  },
  shufflenetv2 = {
    groups = 58, [1] = { 1263854, 1356104 }, [0.5] = { 433034, 525284 }, [0.25] = { 180222, 272472 }, [0.1] = { 74302, 166552 },
  },
  mobilenetv2 = {
    groups = 59, [1] = { 2296922, 2412212 }, [0.5] = { 715834, 831124 }, [0.25] = { 254050, 369340 }, [0.1] = { 89226, 204516 },
  },
}

describe("model", function()
  for model, expected in pairs(models) do
    describe(model, function()
      for _, width in ipairs { 1, 0.5, 0.25, 0.1 } do
        it("has its parameters at width " .. width, function()
          assert.equal(expected[width][1], count(record(model, width, 10)))
          assert.equal(expected[width][2], count(record(model, width, 100)))
        end)
      end

      it("has its groups", function()
        assert.equal(expected.groups, #core.assignment(record(model, 1, 10), 128, precision.candidates "hfp8"):groups())
      end)

      it("can have any width", function()
        assert.is_true(count(record(model, 0.1, 10)) < count(record(model, 0.125, 10)))
        assert.is_true(count(record(model, 0.5, 10)) < count(record(model, 0.75, 10)))
        assert.is_true(count(record(model, 1, 10)) < count(record(model, 1.5, 10)))
      end)
    end)
  end

  it("squeezenet has its listed widths, and its names", function()
    local graph = record("squeezenet", 0.1, 100)
    assert.same({ 12, 3, 3, 3 }, dims(graph, "stem.0.weight"))
    assert.same({ 4, 12, 1, 1 }, dims(graph, "fire2.squeeze.0.weight"))
    assert.same({ 20, 8, 3, 3 }, dims(graph, "fire7.expand_3x3.0.weight"))
    assert.same({ 256, 8, 1, 1 }, dims(graph, "fire9.expand_1x1.0.weight"))
    assert.same({ 100, 512, 1, 1 }, dims(graph, "conv10.weight"))
    assert.same({ 100 }, dims(graph, "conv10.bias"))
  end)

  it("shufflenetv2 has its listed widths, and its names", function()
    local graph = record("shufflenetv2", 0.25, 10)
    assert.same({ 14, 24, 1, 1 }, dims(graph, "layer1.0.conv2.weight"))
    assert.same({ 28, 1, 3, 3 }, dims(graph, "layer2.1.conv2.weight"))
    assert.same({ 1024, 112, 1, 1 }, dims(graph, "conv2.weight"))
    assert.same({ 10, 1024 }, dims(graph, "linear.weight"))
  end)

  it("mobilenetv2 scales its widths by the divisible rule, its head upwards only", function()
    local graph = record("mobilenetv2", 0.25, 10)
    assert.same({ 8, 3, 3, 3 }, dims(graph, "conv1.weight"))
    assert.same({ 1280, 80, 1, 1 }, dims(graph, "conv2.weight"))
    assert.same({ 48, 1, 3, 3 }, dims(graph, "layers.3.conv2.weight"))
    assert.same({ 24, 16, 1, 1 }, dims(graph, "layers.10.shortcut.0.weight"))
    assert.same({ 2560, 640, 1, 1 }, dims(record("mobilenetv2", 2, 10), "conv2.weight"))
  end)

  it("shufflenetv2's shuffles have no tensors of their own; each half of a split has", function()
    local kinds = {}
    for _, op in ipairs(record("shufflenetv2", 1, 10):operators()) do kinds[op.kind] = (kinds[op.kind] or 0) + 1 end
    assert.same({ input = 1, conv2d = 56, batchnorm2d = 56, relu = 37, slice = 26, concat = 16, avgpool = 1, linear = 1,
      log_softmax = 1, nll_loss = 1 }, kinds)
  end)

  it("shufflenetv2's concat and split, squeezenet's pools follow their inputs under amp", function()
    for model, followers in pairs { shufflenetv2 = { concat = 16, slice = 26 }, squeezenet = { maxpool = 3, concat = 8 } } do
      local plan = precision.plan(precision.amp(), record(model, 1, 10), 128)
      for _, op in ipairs(plan.graph:operators()) do
        if followers[op.kind] then
          local expected = true
          for _, input in ipairs(op.inputs) do expected = expected and input.v.is_low end
          local feeds = false
          for _, consumer in ipairs(op.consumers) do feeds = feeds or consumer.gemm end
          assert.equal(expected or feeds, op.v.is_low, op.name)
          followers[op.kind] = followers[op.kind] - 1
        end
      end
      for kind, left in pairs(followers) do assert.equal(0, left, kind) end
    end
  end)
end)
