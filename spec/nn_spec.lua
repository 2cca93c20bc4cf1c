local nn = require "mptl.nn"

local function names(graph)
  local list = {}
  for i, op in ipairs(graph:operators()) do list[i] = op.name end
  return list
end

-- A model that is a chain of modules under `net`, on small images.
local function record(model, options)
  options = options or {}
  options.input = options.input or { 3, 4, 4 }
  return nn.record(model, options)
end

local Block = nn.Module("Block")

function Block:init(inp, out)
  self.conv1 = nn.Conv2d { inp, out, kernel = 3, padding = 1, bias = false }
  self.bn1 = nn.BatchNorm2d(out)
  self.shortcut = nn.Sequential {}
  if inp ~= out then self.shortcut = nn.Sequential { nn.Conv2d { inp, out, kernel = 1 } } end
end

function Block:forward(x)
  return nn.relu(nn.relu(self.bn1(self.conv1(x))) + self.shortcut(x))
end

local function classifier(first)
  return nn.Sequential { first, nn.AvgPool2d(4), nn.Flatten(), nn.Linear { 8, 10 } }
end

describe("nn.record()", function()
  it("names operators by their module's path, functions by the caller's", function()
    assert.same({
      "input", "0.conv1", "0.bn1", "0.relu", "0.shortcut.0", "0.add", "0.relu_2", "1", "3", "log_softmax", "nll_loss",
    }, names(record(classifier(Block(3, 8)))))
  end)

  it("records in the order of the calls", function()
    local ops = record(classifier(Block(3, 8))):operators()
    assert.same({ 3, 4 }, ops[6].inputs)
    assert.equal("add", ops[6].kind)
  end)

  it("names parameters as PyTorch does, with their shapes", function()
    local parameters = record(classifier(Block(3, 8))):parameters()
    local found = {}
    for _, p in ipairs(parameters) do found[#found + 1] = p.name .. " " .. table.concat(p.dims, "x") end
    assert.same({
      "0.conv1.weight 8x3x3x3", "0.bn1.weight 8", "0.bn1.bias 8", "0.bn1.running_mean 8", "0.bn1.running_var 8",
      "0.shortcut.0.weight 8x3x1x1", "0.shortcut.0.bias 8", "3.weight 10x8", "3.bias 10",
    }, found)
  end)

  it("accepts a function over symbolic values", function()
    local graph = record(function(x, cfg)
      assert.same({ 3, 4, 4 }, x.shape)
      return nn.Linear { 48, cfg.classes, name = "fc" }(nn.flatten(nn.relu(x)))
    end, { cfg = { classes = 5 } })
    assert.same({ "input", "relu", "fc", "log_softmax", "nll_loss" }, names(graph))
  end)

  it("names modules that no field holds by their class", function()
    local graph = record(function(x)
      x = nn.Conv2d { 3, 4, kernel = 1 }(x)
      return nn.Linear { 64, 2 }(nn.flatten(nn.Conv2d { 4, 4, kernel = 1 }(x)))
    end)
    assert.same({ "input", "conv2d", "conv2d_2", "linear", "log_softmax", "nll_loss" }, names(graph))
    graph = record(function(x)
      x = nn.Sequential { nn.Conv2d { 3, 4, kernel = 1 } }(x)
      x = nn.Sequential { nn.Conv2d { 4, 4, kernel = 1 }, nn.ReLU() }(x)
      return nn.Sequential { nn.Flatten(), nn.Linear { 64, 2 } }(x)
    end)
    assert.same({ "input", "sequential.0", "sequential_2.0", "sequential_2.1", "sequential_3.1", "log_softmax", "nll_loss" },
      names(graph))
  end)

  it("numbers operators of one name, past names that are taken already", function()
    local found = names(record(function(x)
      local y = nn.relu(x)
      for _, name in ipairs { "relu_3", "relu", "relu_6" } do y = nn.Conv2d { 3, 3, kernel = 1, name = name }(y) end
      for _ = 1, 4 do y = nn.relu(y) end
      y = nn.gelu(y, "none", "relu_2")
      y = nn.gelu(y, "none", "relu_2")
      return nn.Linear { 48, 2 }(nn.flatten(nn.relu(y)))
    end))
    assert.same({
      "input", "relu", "relu_3", "relu_2", "relu_6", "relu_4", "relu_5", "relu_7", "relu_8", "relu_2_2", "relu_2_3", "relu_9",
      "linear", "log_softmax", "nll_loss",
    }, found)
  end)

  it("does not repeat a loss that the model has", function()
    assert.same({ "input", "linear", "log_softmax", "nll_loss" }, names(record(function(x)
      return nn.log_softmax(nn.Linear { 48, 2 }(nn.flatten(x)))
    end)))
    assert.same({ "input", "linear", "nll_loss", "relu" }, names(record(function(x)
      return nn.relu(nn.nll_loss(nn.Linear { 48, 2 }(nn.flatten(x))))
    end)))
  end)

  it("appends the loss that it is given", function()
    local scores = nn.Sequential { nn.Flatten(), nn.Linear { 48, 2 } }
    assert.same({ "input", "1", "nll_loss" }, names(record(scores, { loss = nn.nll_loss })))
    assert.same({ "input", "1", "relu", "nll_loss" }, names(record(scores, { loss = function(y)
      return nn.nll_loss(nn.relu(y))
    end })))
    local _, message = pcall(record, scores, { loss = nn.relu })
    assert.matches("loss: calls no loss, such as nn.cross_entropy%(y%)$", message)
  end)

  it("says where a layer does not fit, with its path and the script's line", function()
    local ok, message = pcall(record, classifier(Block(4, 8)))
    assert.is_false(ok)
    assert.matches("nn_spec%.lua:%d+: 0%.conv1 %(conv2d%): input of 3 channels, declared for 4$", message)
  end)

  it("adds the script's line to the engine's errors", function()
    local ok, message = pcall(record, function(x) return nn.relu(x) + nn.avg_pool2d(x, 2) end)
    assert.is_false(ok)
    assert.matches("nn_spec%.lua:%d+: add %(add%): inputs of shapes 3x4x4 and 3x2x2, must be equal$", message)
  end)

  it("adds the path to errors of a forward function", function()
    local Broken = nn.Module("Broken")
    function Broken:forward(x) return x.shape[4] + 1 end -- luacheck: ignore self
    local ok, message = pcall(record, nn.Sequential { nn.Sequential { Broken() } })
    assert.is_false(ok)
    assert.matches("nn_spec%.lua:%d+: 0%.0 %(Broken%): attempt to perform arithmetic", message)
  end)

  it("refuses a value that is not a model, and a model that ends in the wrong shape", function()
    assert.has_error(function() record(3) end)
    local function message(model, options)
      local _, m = pcall(record, model, options)
      return m
    end
    assert.matches("model: ends in shape 3x4x4, must end in one number per class", message(nn.ReLU()))
    assert.matches("model: ends in 7 numbers, the data set has 10 classes",
      message(nn.Sequential { nn.Flatten(), nn.Linear { 48, 7 } }, { classes = 10 }))
    assert.matches("model: its forward returned nil, must return a symbolic value", message(function() end))
  end)

  it("refuses to share parameters between two calls", function()
    local conv = nn.Conv2d { 3, 3, kernel = 1 }
    local ok, message = pcall(record, nn.Sequential { conv, conv })
    assert.is_false(ok)
    assert.matches("0 %(conv2d%): called twice; two operators cannot share parameters$", message)
  end)
end)

describe("nn layers", function()
  it("describe themselves", function()
    assert.equal("Conv2d(3, 64, kernel=3, stride=1, padding=1, bias=false)",
      tostring(nn.Conv2d { 3, 64, kernel = 3, stride = 1, padding = 1, bias = false }))
    assert.equal("Linear(512, 10)", tostring(nn.Linear { 512, 10 }))
    assert.equal("Sequential(\n  (0): ReLU()\n  (1): AvgPool2d(4)\n)", tostring(nn.Sequential { nn.ReLU(), nn.AvgPool2d(4) }))
    assert.equal("Block(\n  (conv1): Conv2d(3, 3, kernel=3, padding=1, bias=false)\n  (bn1): BatchNorm2d(3)\n"
      .. "  (shortcut): Sequential()\n)", tostring(Block(3, 3)))
  end)

  it("name a mistaken option, and what is accepted", function()
    local _, message = pcall(function() local _ = nn.Conv2d { 3, 8, kernal = 3 } end)
    assert.matches(
      'nn_spec%.lua:%d+: Conv2d: unknown option kernal %(did you mean "kernel"%?%), accepted are name, kernel,', message)
    _, message = pcall(function() local _ = nn.Conv2d { 3, 8.5, kernel = 3 } end)
    assert.matches("Conv2d: output channels: 8%.5, must be a whole number above 0$", message)
    _, message = pcall(function() local _ = nn.Linear { 3 } end)
    assert.matches("Linear: the number of output features is missing", message)
    _, message = pcall(function() local _ = nn.ReLU()(3) end)
    assert.matches("ReLU: called with number, must be a symbolic value", message)
  end)

  it("have functions for layers without parameters", function()
    local graph = record(function(x)
      x = nn.conv_bn { 3, 8, kernel = 3 }(x)
      local a, b, c = nn.split(nn.relu6(x), 2, 3)
      assert.same({ { 2, 4, 4 }, { 3, 4, 4 }, { 3, 4, 4 } }, { a.shape, b.shape, c.shape })
      x = nn.concat({ a, nn.sigmoid(b) * c, nn.mul(b, c) }, { shuffle = 4 })
      x = nn.channel_shuffle(nn.max_pool2d(nn.dropout(x, 0.1), 3, 2, 1), 2)
      assert.same({ 8, 2, 2 }, x.shape)
      x = nn.mean(x)
      assert.same({ 8 }, x.shape)
      return nn.Linear { 8, 2 }(nn.gelu(x, "none") + nn.gelu(x, "tanh"))
    end)
    local kinds = {}
    for i, op in ipairs(graph:operators()) do kinds[i] = op.kind end
    assert.same({ "input", "conv2d", "relu6", "slice", "slice", "slice", "sigmoid", "mul", "mul", "concat", "dropout", "maxpool",
      "concat", "mean", "gelu", "gelu_tanh", "add", "linear", "log_softmax", "nll_loss" }, kinds)
  end)

  it("are the same operators as the functions", function()
    local function kinds(model)
      local list = {}
      for i, op in ipairs(record(model):operators()) do list[i] = ("%s %d"):format(op.kind, op.numel) end
      return list
    end
    assert.same(kinds(function(x)
      x = nn.gelu(nn.gelu(nn.sigmoid(nn.relu6(nn.dropout(x)))), "tanh")
      return nn.flatten(nn.max_pool2d(x, 2) + nn.max_pool2d(x, { 2, 2 }, 2, 0) + nn.avg_pool2d(x, 3, 3, 1, false))
    end), kinds(function(x)
      x = nn.GELU("tanh")(nn.GELU()(nn.Sigmoid()(nn.ReLU6()(nn.Dropout(0.5)(x)))))
      return nn.flatten(nn.MaxPool2d(2)(x) + nn.MaxPool2d { kernel = 2, stride = 2, padding = 0 }(x)
        + nn.AvgPool2d { kernel = 3, padding = 1, count_include_pad = false }(x))
    end))
    assert.equal("Dropout(0.1)", tostring(nn.Dropout(0.1)))
    assert.equal("GELU(tanh)", tostring(nn.GELU "tanh"))
    assert.equal("GELU(approximate=tanh)", tostring(nn.GELU { approximate = "tanh" }))
    assert.same({ "input", "0", "log_softmax", "nll_loss" }, names(record(nn.Sequential { nn.GELU "tanh", nn.Flatten() })))
    assert.equal("MaxPool2d(kernel=3, stride=2)", tostring(nn.MaxPool2d { kernel = 3, stride = 2 }))
  end)

  it("name inputs that they do not accept", function()
    local function message(model)
      local _, m = pcall(record, model)
      return m
    end
    assert.matches("nn_spec%.lua:%d+: concat: a value, must be a list of values: nn.concat{ x, y }$", message(nn.concat))
    assert.matches("concat: unknown option shufle %(did you mean \"shuffle\"%?%)",
      message(function(x) return nn.concat({ x }, { shufle = 3 }) end))
    assert.matches("dropout %(dropout%): p: 1%.5, accepted are 0 to 1$", message(function(x) return nn.dropout(x, 1.5) end))
    assert.matches("nn_spec%.lua:%d+: gelu: approximate: erf, accepted are none, tanh$",
      message(function(x) return nn.gelu(x, "erf") end))
    assert.matches("0 %(GELU%): gelu: approximate: 3, accepted are none, tanh$", message(nn.Sequential { nn.GELU(3) }))
    assert.matches("slice %(slice%): channels 2 to 4, the input has 0 to 2$", message(function(x) return nn.slice(x, 2, 3) end))
    assert.matches("avgpool %(avgpool%): padding: 2, accepted is at most half of the kernel's 3$",
      message(function(x) return nn.avg_pool2d(x, 3, 1, 2) end))
    assert.matches("MaxPool2d: kernel is missing: nn.MaxPool2d%(4%)$", message(function() return nn.MaxPool2d {} end))
    assert.matches("conv_bn: kernel 2, accepted are odd whole numbers$",
      message(function() return nn.conv_bn { 3, 3, kernel = 2 } end))
  end)

  it("include a normalised convolution: two layers or three, for fields or for a Sequential", function()
    local block = nn.Sequential { nn.conv_bn { 3, 8, kernel = 3, stride = 2, groups = 1, relu = true } }
    assert.equal("Sequential(\n  (0): Conv2d(3, 8, kernel=3, stride=2, padding=1, groups=1, bias=false)\n"
      .. "  (1): BatchNorm2d(8)\n  (2): ReLU()\n)", tostring(block))
    assert.equal(2, select("#", nn.conv_bn { 3, 8 }))
  end)

  it("normalise the features of a flat value or the channels of each pixel", function()
    local model = nn.Sequential { nn.LayerNorm { 3, eps = 1e-6 }, nn.Conv2d { 3, 8, kernel = 4 }, nn.Flatten(), nn.LayerNorm(8),
      nn.LayerNorm { 8, bias = false }, nn.Linear { 8, 10 } }
    assert.matches("(0): LayerNorm(3, eps=1e-06)", tostring(model), 1, true)
    local found = {}
    for _, p in ipairs(record(model):parameters()) do
      if #p.dims == 1 then found[#found + 1] = p.name .. " " .. p.dims[1] end
    end
    assert.same({ "0.weight 3", "0.bias 3", "1.bias 8", "3.weight 8", "3.bias 8", "4.weight 8", "5.bias 10" }, found)
    local function message(...)
      local _, m = pcall(record, nn.Sequential { ... })
      return m
    end
    assert.matches("0 %(layernorm%): input of 3 channels, declared for 4$", message(nn.LayerNorm(4)))
    assert.matches("1 %(layernorm%): input 0 is a flattened image: flatten it later$", message(nn.Flatten(), nn.LayerNorm(48)))
    assert.matches("LayerNorm: the number of features is missing: nn.LayerNorm{ features }$",
      select(2, pcall(function() return nn.LayerNorm {} end)))
  end)

  it("accept integers that are floats, as scaled widths are", function()
    assert.equal(16, nn.Conv2d { 3, 64 * 0.25, kernel = 1 }.attributes.out)
  end)

  it("accept modules in lists and in fields that are assigned later", function()
    local Listed = nn.Module("Listed")
    function Listed:init()
      self.act = false
      self.act = nn.ReLU()
      self.blocks = { nn.Conv2d { 3, 3, kernel = 1 }, nn.Conv2d { 3, 3, kernel = 1 } }
    end
    function Listed:forward(x)
      for _, block in ipairs(self.blocks) do x = self.act(block(x)) end
      return nn.flatten(x)
    end
    assert.same({ "input", "blocks.0", "act", "blocks.1", "act_2", "log_softmax", "nll_loss" }, names(record(Listed())))
  end)
end)

describe("nn.init", function()
  it("takes the fan from PyTorch's order of dimensions", function()
    local dims = { 64, 3, 3, 3 }
    local kind, mean, std = nn.init.kaiming_normal { mode = "fan_out" } (dims)
    assert.same({ "normal", 0.0 }, { kind, mean })
    assert.near(math.sqrt(2 / (64 * 9)), std, 1e-15)
    assert.near(math.sqrt(2 / 27), select(3, nn.init.kaiming_normal {}(dims)), 1e-15)
    assert.near(math.sqrt(2) * math.sqrt(3 / 27), select(3, nn.init.kaiming_uniform {}(dims)), 1e-15)
  end)

  it("names a wrong mode", function()
    assert.error_matches(function() nn.init.kaiming_normal { mode = "fan" } end, "mode fan, accepted are fan_in, fan_out")
  end)
end)

describe("nn.divisible()", function()
  it("is the nearest multiple, at least the divisor, never below 0.9 of the width", function()
    assert.equal(16, nn.divisible(64 * 0.25, 4))
    assert.equal(8, nn.divisible(64 * 0.1, 4))
    assert.equal(4, nn.divisible(1, 4))
    assert.equal(24, nn.divisible(18.8, 8)) -- the nearest, 16, is below 0.9 * 18.8
    assert.same({ 16, 24, 32 }, { nn.scaled(64, 0.25), nn.scaled(44, 0.5), nn.scaled(32, 1) }) -- by 4; by 8
  end)
end)
