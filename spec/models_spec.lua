-- The installed networks: what the method and torchvision say of each, at every width and number of classes.
local configuration = require "mptl.configuration"
local core = require "mptl.core"
local nn = require "mptl.nn"
local precision = require "mptl.precision"
local process = require "support.process"
local script = require "mptl.script"

local function record(model, width, classes)
  local fields = script.load(model)
  fields.classes = classes
  return script.record(configuration.make(fields, { width = width }))
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

-- Groups at width 1, and parameters by width, with 10 classes, 100 and 1000: counted in PyTorch models of the same layouts, those
-- of the ImageNet networks in torchvision's.
local models = {
  resnet18_cifar = {
    groups = 22, [1] = { 11173962, 11220132 }, [0.5] = { 2797610, 2820740 }, [0.25] = { 701466, 713076 },
    [0.1] = { 112778, 117548 },
  },
  squeezenet_cifar = {
    groups = 27, [1] = { 734986, 781156 }, [0.5] = { 232202, 278372 }, [0.25] = { 84778, 130948 }, [0.1] = { 36482, 82652 },
  },
  shufflenetv2_cifar = {
    groups = 58, [1] = { 1263854, 1356104 }, [0.5] = { 433034, 525284 }, [0.25] = { 180222, 272472 },
    [0.1] = { 74302, 166552 },
  },
  mobilenetv2_cifar = {
    groups = 59, [1] = { 2296922, 2412212 }, [0.5] = { 715834, 831124 }, [0.25] = { 254050, 369340 },
    [0.1] = { 89226, 204516 },
  },
  shufflenetv2_imagenet = {
    groups = 58, [1] = { 1263854, 1356104, 2278604 }, [0.5] = { 352042, 444292, 1366792 },
    [1.5] = { 2488874, 2581124, 3503624 }, [2] = { 5365486, 5549896, 7393996 },
  },
  resnet50_imagenet = {
    groups = 55, [1] = { 23528522, 23712932, 25557032 }, [0.5] = { 5902890, 5995140, 6917640 },
    [0.25] = { 1486106, 1532276, 1993976 }, [2] = { 93948042, 94316772, 98004072 },
  },
}

describe("model", function()
  for model, expected in pairs(models) do
    describe(model, function()
      for width, parameters in pairs(expected) do
        if type(width) == "number" then
          it("has its parameters and groups at width " .. width, function()
            for i, classes in ipairs { 10, 100, 1000 } do
              local graph = record(model, width, classes)
              assert.equal(parameters[i] or count(graph), count(graph))
              if width == 1 then
                assert.equal(expected.groups, #core.assignment(graph, 128, precision.candidates "hfp8"):groups())
              end
            end
          end)
        end
      end

      it("can have any width", function()
        local last = 0
        for _, width in ipairs { 0.01, 0.125, 0.3, 0.75, 1.25, 3 } do
          local parameters = count(record(model, width, 10))
          assert.is_true(parameters > last)
          last = parameters
        end
      end)
    end)
  end

  it("refuses invalid widths, and says what it accepts", function()
    for _, width in ipairs { "0", "17", "wide", "nan" } do
      local result = process.mptl { "plan", "shufflenetv2_imagenet", "--width", width }
      assert.same({ 2, ("mptl plan: --width: %s, accepted are numbers above 0 to 16\n"):format(width) },
        { result.status, result.err })
    end
    assert.error_matches(function() nn.scaled(64, -1) end, "nn.scaled: multiplier %-1, must be a number above 0")
  end)

  it("squeezenet has its listed widths, and its names", function()
    local graph = record("squeezenet_cifar", 0.1, 100)
    assert.same({ 12, 3, 3, 3 }, dims(graph, "stem.0.weight"))
    assert.same({ 4, 12, 1, 1 }, dims(graph, "fire2.squeeze.0.weight"))
    assert.same({ 20, 8, 3, 3 }, dims(graph, "fire7.expand_3x3.0.weight"))
    assert.same({ 256, 8, 1, 1 }, dims(graph, "fire9.expand_1x1.0.weight"))
    assert.same({ 100, 512, 1, 1 }, dims(graph, "conv10.weight"))
    assert.same({ 100 }, dims(graph, "conv10.bias"))
  end)

  it("shufflenetv2_imagenet has torchvision's names, and widths between those listed", function()
    local graph = record("shufflenetv2_imagenet", 0.75, 10)
    assert.same({ 24, 3, 3, 3 }, dims(graph, "conv1.0.weight"))
    assert.same({ 44, 24, 1, 1 }, dims(graph, "stage2.0.branch1.2.weight"))
    assert.same({ 44, 1, 3, 3 }, dims(graph, "stage2.3.branch2.3.weight"))
    assert.same({ 1024, 352, 1, 1 }, dims(graph, "conv5.0.weight"))
    assert.same({ 2048, 1392, 1, 1 }, dims(record("shufflenetv2_imagenet", 3, 10), "conv5.0.weight"))
  end)

  it("a shuffle unit says what channels it accepts", function()
    local function message(options)
      local _, m = pcall(function() return nn.ShuffleUnit(options) end)
      return m
    end
    local accepted = ", accepted are an even output, in stride 1 the same as the input$"
    assert.matches("models_spec.lua:%d+: ShuffleUnit: 24 channels to 25 in stride 2" .. accepted, message { 24, 25, stride = 2 })
    assert.matches("ShuffleUnit: 24 channels to 48 in stride 1" .. accepted, message { 24, 48 })
    assert.matches("ShuffleUnit: stride 0.5, accepted are whole numbers from 1$", message { 24, 48, stride = 0.5 })
    assert.matches("ShuffleUnit: the number of output channels is nil, must be a whole number$", message { 24 })
  end)

  it("shufflenetv2 has its listed widths, and its names", function()
    local graph = record("shufflenetv2_cifar", 0.25, 10)
    assert.same({ 14, 24, 1, 1 }, dims(graph, "layer1.0.conv2.weight"))
    assert.same({ 28, 1, 3, 3 }, dims(graph, "layer2.1.conv2.weight"))
    assert.same({ 1024, 112, 1, 1 }, dims(graph, "conv2.weight"))
    assert.same({ 10, 1024 }, dims(graph, "linear.weight"))
  end)

  it("mobilenetv2 scales its widths by the divisible rule, its head upwards only", function()
    local graph = record("mobilenetv2_cifar", 0.25, 10)
    assert.same({ 8, 3, 3, 3 }, dims(graph, "conv1.weight"))
    assert.same({ 1280, 80, 1, 1 }, dims(graph, "conv2.weight"))
    assert.same({ 48, 1, 3, 3 }, dims(graph, "layers.3.conv2.weight"))
    assert.same({ 24, 16, 1, 1 }, dims(graph, "layers.10.shortcut.0.weight"))
    assert.same({ 2560, 640, 1, 1 }, dims(record("mobilenetv2_cifar", 2, 10), "conv2.weight"))
  end)

  it("shufflenetv2's shuffles have no tensors of their own; each half of a split has", function()
    local kinds = {}
    for _, op in ipairs(record("shufflenetv2_cifar", 1, 10):operators()) do kinds[op.kind] = (kinds[op.kind] or 0) + 1 end
    assert.same({ input = 1, conv2d = 56, batchnorm2d = 56, relu = 37, slice = 26, concat = 16, avgpool = 1, linear = 1,
      log_softmax = 1, nll_loss = 1 }, kinds)
  end)

  it("shufflenetv2's concat and split, squeezenet's pools follow their inputs under amp", function()
    local all = { shufflenetv2_cifar = { concat = 16, slice = 26 }, squeezenet_cifar = { maxpool = 3, concat = 8 } }
    for model, followers in pairs(all) do
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
