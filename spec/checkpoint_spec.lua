local core = require "mptl.core"
local checkpoint = require "mptl.checkpoint"
local safetensors = require "mptl.safetensors"

--- conv -> batch norm -> linear -> loss, on 2x4x4 images.
local function small_graph(channels)
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { 2, 4, 4 } }, { out = channels, kernel = 3, padding = 1, bias = false })
  x = g:flatten(g:add("batchnorm2d", "bn", { x }))
  g:add("nll_loss", "loss", { g:add("log_softmax", "softmax", { g:add("linear", "fc", { x }, { out = 3 }) }) })
  return g
end

local formats = { v = "fp32", dv = "fp32", theta = "fp32", dtheta = "fp32" }

--- A graph, its model and a program that trains it.
local function small_training(channels, seed)
  local graph = small_graph(channels or 2)
  local model = core.model(graph, { seed = seed or 1 })
  local assignment = core.assignment(graph, 2, { high = formats, low = formats })
  return graph, model, core.program(model, assignment, { batch = 2, train = true })
end

local function images()
  local values = {}
  for i = 1, 64 do values[i] = math.sin(i) end
  return core.tensor({ 64 }, values)
end

describe("checkpoint", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  it("names tensors as PyTorch does, and has momentum and the batch norms' counters besides", function()
    local graph, model = small_training()
    checkpoint.save(path, graph, model, { step = 7 })
    local file = safetensors.open(path)
    assert.same({
      "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked",
      "fc.weight", "fc.bias",
      "optimizer.momentum.conv.weight", "optimizer.momentum.bn.weight", "optimizer.momentum.bn.bias",
      "optimizer.momentum.fc.weight", "optimizer.momentum.fc.bias",
    }, file.names)
    assert.same({ dtype = "I64", shape = {}, size = 8 },
      { dtype = file.tensors["bn.num_batches_tracked"].dtype, shape = file.tensors["bn.num_batches_tracked"].shape, size = 8 })
    assert.same({ 2, 2, 3, 3 }, file.tensors["conv.weight"].shape)
  end)

  it("continues a training bit for bit", function()
    local x, update = images(), { lr = 0.1, momentum = 0.9, weight_decay = 1e-3 }
    local graph, model, program = small_training()
    program:step(x, { 0, 1 }, update)
    checkpoint.save(path, graph, model, { step = 1, updates = model:updates() })
    program:step(x, { 2, 1 }, update)

    local graph2, model2, program2 = small_training(2, 99)
    local state, file = checkpoint.state(path)
    checkpoint.load(file, graph2, model2, true)
    model2:set_updates(state.updates)
    program2:step(x, { 2, 1 }, update)
    for _, name in ipairs(model:names()) do
      assert.equal(model:tensor(name):tostring(), model2:tensor(name):tostring(), name)
    end
    assert.equal(model:state("momentum", "fc.weight"):tostring(), model2:state("momentum", "fc.weight"):tostring())
  end)

  it("restores every number of the state exactly", function()
    local graph, model = small_training()
    local saved = {
      step = 3, third = 1 / 3, tiny = 5e-324, whole = 65536.0, big = math.huge, list = { 1, 2.5, { x = "y" } }, yes = true,
    }
    checkpoint.save(path, graph, model, saved)
    local state = checkpoint.state(path)
    assert.same(saved, state)
    assert.equal("float", math.type(state.whole))
    assert.equal("integer", math.type(state.step))
    checkpoint.save(path, graph, model, { step = 3, nan = 0 / 0 })
    local nan = checkpoint.state(path).nan
    assert.is_true(nan ~= nan)
  end)

  it("of the same state is the same file", function()
    local function text()
      local graph, model = small_training()
      checkpoint.save(path, graph, model, { step = 1, a = 1, b = 2, c = { d = 3, e = 4, f = 5 } })
      local f <close> = assert(io.open(path, "rb"))
      return f:read "a"
    end
    assert.equal(text(), text())
  end)

  it("finds every flipped bit before anything is changed", function()
    local graph, model = small_training()
    checkpoint.save(path, graph, model, { step = 1, settings = { lr = 0.5 } })
    local file <close> = assert(io.open(path, "rb"))
    local text = file:read "a"
    local before = model:tensor("conv.weight"):tostring()
    for at = 1, #text, 5 do
      local damaged <close> = assert(io.open(path, "wb"))
      damaged:write(text:sub(1, at - 1), string.char(text:byte(at) ~ 1 << at // 5 % 8), text:sub(at + 1))
      damaged:flush()
      local ok, message = pcall(function()
        local _, opened = checkpoint.state(path)
        checkpoint.load(opened, graph, model, true)
      end)
      assert.is_false(ok, at)
      assert.equal(path, message:sub(1, #path), at)
      assert.is_nil(message:find "\n")
    end
    assert.equal(before, model:tensor("conv.weight"):tostring())
  end)

  it("skips tensors of types that mptl does not use", function()
    local graph, model = small_training()
    local tensors = { { name = "conv.scales", dtype = "F8_E4M3", shape = { 3 }, bytes = "abc" } }
    for _, name in ipairs(model:names()) do tensors[#tensors + 1] = { name = name, tensor = model:tensor(name) } end
    safetensors.write(path, tensors)
    local _, file = checkpoint.state(path)
    checkpoint.load(file, graph, model)
  end)

  describe("of another network is refused, and the model does not change:", function()
    local function load_into(graph, model, training)
      local before = model:tensor("conv.weight"):tostring()
      local _, file = checkpoint.state(path)
      local ok, message = pcall(checkpoint.load, file, graph, model, training)
      assert.is_false(ok)
      assert.equal(before, model:tensor("conv.weight"):tostring())
      return message
    end

    it("a tensor of another shape", function()
      local graph, model = small_training(3)
      checkpoint.save(path, graph, model, { step = 0 })
      graph, model = small_training(2)
      assert.equal(path .. ": not a checkpoint of this network: conv.weight has the shape 3x2x3x3, the network's is 2x2x3x3",
        load_into(graph, model))
    end)

    it("a tensor that is missing", function()
      safetensors.write(path, { { name = "conv.weight", tensor = core.tensor { 2, 2, 3, 3 } } })
      local graph, model = small_training()
      assert.equal(path .. ": not a checkpoint of this network: bn.weight is missing", load_into(graph, model))
    end)

    it("a surplus tensor", function()
      local graph, model = small_training()
      local tensors = { { name = "extra.weight", tensor = core.tensor { 1 } } }
      for _, name in ipairs(model:names()) do tensors[#tensors + 1] = { name = name, tensor = model:tensor(name) } end
      safetensors.write(path, tensors)
      assert.equal(path .. ": not a checkpoint of this network: it has extra.weight, which the network has not",
        load_into(graph, model))
    end)

    it("a tensor of another type", function()
      safetensors.write(path, { { name = "conv.weight", dtype = "F16", shape = { 2, 2, 3, 3 }, bytes = ("\0"):rep(72) } })
      local graph, model = small_training()
      assert.equal(path .. ": not a checkpoint of this network: conv.weight is of type F16, must be F32", load_into(graph, model))
    end)

    it("no momentum, when training shall continue", function()
      local graph, model = small_training()
      local tensors = {}
      for _, name in ipairs(model:names()) do tensors[#tensors + 1] = { name = name, tensor = model:tensor(name) } end
      safetensors.write(path, tensors)
      assert.equal(path .. ": not a checkpoint of this network: optimizer.momentum.conv.weight is missing",
        load_into(graph, model, true))
    end)
  end)

  it("is read for evaluation from bare parameters", function()
    local _, model = small_training()
    local tensors = {}
    for _, name in ipairs(model:names()) do tensors[#tensors + 1] = { name = name, tensor = model:tensor(name) } end
    safetensors.write(path, tensors)
    local graph2, model2 = small_training(2, 5)
    local state, file = checkpoint.state(path)
    checkpoint.load(file, graph2, model2)
    assert.is_nil(state)
    assert.equal(model:tensor("fc.weight"):tostring(), model2:tensor("fc.weight"):tostring())
  end)

  it("with impossible counts is refused", function()
    local resume = require "mptl.resume"
    local function state(name, value)
      local all = { epoch = 1, batch = 2, step = 7, updates = 6, promotions = 0, formats = {},
        loss_scale = { scale = 1.0, good = 0 },
        sums = { loss = 1.5, correct = 1, count = 8, skipped = 0, nan_steps = 0, seconds = 0.5 } }
      if name then (all[name] ~= nil and all or all.sums)[name] = value end
      return all
    end
    local function check(checked)
      resume.check_evaluated("c", checked)
      resume.check_continued("c", checked, 2)
    end
    check(state())
    local function refuses(message, name, value)
      assert.same({ false, message }, { pcall(check, state(name, value)) })
    end
    refuses("c: damaged: its state: batch is 3, accepted are whole numbers from 0 to 2", "batch", 3)
    refuses("c: damaged: its state: epoch is 9223372036854775807, accepted are whole numbers from 0 to 1000000", "epoch",
      math.maxinteger)
    refuses("c: damaged: its state: step is -1, accepted are whole numbers from 0 to 9007199254740992", "step", -1)
    refuses('c: damaged: its state: updates is "many", accepted are whole numbers from 0 to 9007199254740992', "updates", "many")
    refuses("c: damaged: its state: sums.count is 1.5, accepted are whole numbers from 0 to 9007199254740992", "count", 1.5)
    refuses("c: damaged: its state: sums is 7, accepted are objects", "sums", 7)
  end)

  it("with invalid settings is not evaluated with them", function()
    local eval = require "mptl.cmd.eval"
    local graph, model = small_training()
    for name, case in pairs {
      batch = { 1e300, "1e%+300, accepted are whole numbers from 1 to 65536" },
      rounding = { {}, "a table, accepted are nearest_even, .*" },
      width = { "wide", "wide, accepted are numbers above 0 to 16" },
    } do
      checkpoint.save(path, graph, model, { epoch = 0, step = 0, formats = {}, settings = { [name] = case[1] } })
      local ok, message = pcall(eval.evaluate, { script = "none", checkpoint = path })
      assert.is_false(ok)
      assert.matches("damaged: its state: settings." .. name .. " is " .. case[2] .. "$", message)
    end
  end)

  it("with a damaged state is refused", function()
    safetensors.write(path, {}, { mptl = "{" })
    assert.error_matches(function() checkpoint.state(path) end, "damaged: its state is no JSON object")
  end)
end)
