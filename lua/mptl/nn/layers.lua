--- The layers: one row for each, from the options a script gives to the engine's operator.
-- To add a layer for an operator of the engine, add a row.
local Module = require "mptl.nn.module"
local functional = require "mptl.nn.functional"
local misuse = require "mptl.misuse"

local M = {}

-- A number that must be a whole one; widths computed with a multiplier may arrive as 64.0.
local function whole(what, name, value)
  local n = math.tointeger(value)
  if not n or n < 1 then misuse.raise("%s: %s: %s, must be a whole number above 0", what, name, tostring(value)) end
  return n
end

-- inputs of the layer as declared against what comes
local function expect(self, x, what)
  if self.inputs and x.shape[1] ~= self.inputs then
    misuse.raise("%s (%s): input of %d %s, declared for %d", x.recorder:layer_path(), self.kind, x.shape[1], what, self.inputs)
  end
end

local function show(value)
  if type(value) == "table" then return ("{%s}"):format(table.concat(value, ", ")) end
  return tostring(value)
end

-- row: class; usage (for help); kind (the engine's operator); positional (names of t[1], t[2]) and whether they are required;
-- channels: these are the inputs, checked against what comes, and the engine's `out`; attributes (names the engine takes);
-- parameters: it has some; weight: function (layer) -> dimensions of its weight; finish: function (layer, options) for the rest;
-- forward: function (layer, x) -> value, for a layer that calls a function of mptl.nn.functional.
local function layer(row)
  local class = Module.class(row.class)
  class.kind, class.usage = row.kind, row.usage
  local accepted = { "name" }
  for _, name in ipairs(row.attributes) do accepted[#accepted + 1] = name end
  if row.parameters then accepted[#accepted + 1] = "init" end

  function class:init(options, ...)
    if type(options) ~= "table" then options = { options, ... } end
    misuse.check_fields(row.class, options, accepted)
    self.options = options
    self.attributes = {}
    for i, name in ipairs(row.positional) do
      if options[i] == nil and row.required then
        misuse.raise("%s: the number of %s is missing: nn.%s{ %s }", row.class, name, row.class,
          table.concat(row.positional, ", "))
      end
      if options[i] ~= nil and row.channels then whole(row.class, name, options[i]) end
    end
    if #options > #row.positional then
      misuse.raise("%s: %d positional values, takes %d (%s)", row.class, #options, #row.positional,
        table.concat(row.positional, ", "))
    end
    for _, name in ipairs(row.attributes) do self.attributes[name] = options[name] end
    if row.channels then
      self.inputs = math.tointeger(options[1])
      self.attributes.out = math.tointeger(options[2])
    end
    if row.finish then row.finish(self, options) end
    if options.init ~= nil and type(options.init) ~= "function" then
      misuse.raise("%s: init: %s, must be an initializer such as nn.init.kaiming_normal{}", row.class, type(options.init))
    end
    if options.name then self.name = options.name end
  end

  function class:describe()
    local parts = {}
    for i = 1, #row.positional do
      if self.options[i] ~= nil then parts[#parts + 1] = show(self.options[i]) end
    end
    for _, name in ipairs(row.attributes) do
      if self.options[name] ~= nil then parts[#parts + 1] = ("%s=%s"):format(name, show(self.options[name])) end
    end
    return table.concat(parts, ", ")
  end

  class.forward = row.forward or function(self, x)
    local recorder = x.recorder
    expect(self, x, #x.shape == 3 and "channels" or "features")
    local y, name = recorder:call(row.kind, { x },
      { name = recorder:layer_path(), attributes = self.attributes, parameters = row.parameters })
    if self.options.init then recorder:set_init(name .. ".weight", row.weight(self, x), self.options.init) end
    return y
  end

  M[row.class] = class
end

local function pair(value, i)
  if type(value) == "table" then return value[i] end
  return value or 1
end

layer {
  class = "Conv2d",
  usage = "nn.Conv2d{ input, output, kernel = 3, stride = 1, padding = 0, dilation = 1, groups = 1, bias = true, init = nil }",
  kind = "conv2d", positional = { "input channels", "output channels" }, required = true, channels = true,
  parameters = true, attributes = { "kernel", "stride", "padding", "dilation", "groups", "bias" },
  finish = function(_, options)
    if options.kernel == nil then misuse.raise("Conv2d: kernel is missing: nn.Conv2d{ input, output, kernel = 3 }") end
  end,
  weight = function(self)
    local a = self.attributes
    return { a.out, self.inputs // (a.groups or 1), pair(a.kernel, 1), pair(a.kernel, 2) }
  end,
}

layer {
  class = "Linear",
  usage = "nn.Linear{ input, output, bias = true, init = nil }",
  kind = "linear", positional = { "input features", "output features" }, required = true, channels = true,
  parameters = true, attributes = { "bias" },
  weight = function(self) return { self.attributes.out, self.inputs } end,
}

layer {
  class = "BatchNorm2d",
  usage = "nn.BatchNorm2d(channels) or nn.BatchNorm2d{ channels, eps = 1e-5, momentum = 0.1 }",
  kind = "batchnorm2d", positional = { "channels" }, required = true, channels = true,
  parameters = true, attributes = { "eps", "momentum" },
  weight = function(self) return { self.inputs } end,
}

layer {
  class = "LayerNorm",
  usage = "nn.LayerNorm(features) or nn.LayerNorm{ features, eps = 1e-5, bias = true }: "
    .. "of flat values, or of the channels of each pixel",
  kind = "layernorm", positional = { "features" }, required = true, channels = true,
  parameters = true, attributes = { "eps", "bias" },
  weight = function(self) return { self.inputs } end,
}

-- PyTorch's stride of a pool is its kernel.
local function pool_window(self, options)
  local kernel = options[1] or options.kernel
  if kernel == nil then misuse.raise("%s: kernel is missing: nn.%s(4)", self.class_name, self.class_name) end
  self.attributes.kernel = kernel
  self.attributes.stride = options.stride or kernel
end

layer {
  class = "AvgPool2d",
  usage = "nn.AvgPool2d(kernel) or nn.AvgPool2d{ kernel = 2, stride = 2, padding = 0, count_include_pad = true }",
  kind = "avgpool", positional = { "kernel" }, attributes = { "kernel", "stride", "padding", "count_include_pad" },
  finish = pool_window,
}

layer {
  class = "MaxPool2d",
  usage = "nn.MaxPool2d(kernel) or nn.MaxPool2d{ kernel = 3, stride = 2, padding = 1 }",
  kind = "maxpool", positional = { "kernel" }, attributes = { "kernel", "stride", "padding" },
  finish = pool_window,
}

layer { class = "ReLU", usage = "nn.ReLU()", kind = "relu", positional = {}, attributes = {} }
layer { class = "ReLU6", usage = "nn.ReLU6()", kind = "relu6", positional = {}, attributes = {} }
layer { class = "Sigmoid", usage = "nn.Sigmoid()", kind = "sigmoid", positional = {}, attributes = {} }

layer {
  class = "GELU",
  usage = 'nn.GELU() or nn.GELU("tanh")',
  kind = "gelu", positional = { "approximate" }, attributes = { "approximate" },
  forward = function(self, x)
    return functional.gelu(x, self.options[1] or self.options.approximate, x.recorder:layer_path())
  end,
}

layer {
  class = "Dropout",
  usage = "nn.Dropout(p) or nn.Dropout{ p = 0.5 }: in training each element is zero with probability p",
  kind = "dropout", positional = { "p" }, attributes = { "p" },
  finish = function(self, options) self.attributes.p = options[1] or options.p end,
}

--- flatten as a module.
M.Flatten = Module.class("Flatten")
M.Flatten.usage = "nn.Flatten()"
function M.Flatten:forward(x) -- luacheck: ignore self
  return functional.flatten(x)
end

--- The modules (or functions of a value) of a list, one after the other, named "0", "1", ... or by their `name` option.
-- @usage nn.Sequential{ nn.Flatten(), nn.Linear{ 3072, 10 } }
M.Sequential = Module.class("Sequential")
M.Sequential.usage = "nn.Sequential{ module, module, ... }"

local steps = setmetatable({}, { __mode = "k" }) -- sequence -> what it calls, in order

function M.Sequential:init(modules)
  steps[self] = {}
  for _, module in ipairs(modules or {}) do self:append(module) end
end

--- Appends a module.
-- @param module the module, or a function of a value
-- @return the sequence
function M.Sequential:append(module)
  local list = steps[self]
  if not Module.is(module) and type(module) ~= "function" then
    misuse.raise("Sequential: element %d is a %s, must be a module or a function of a value", #list + 1, type(module))
  end
  if Module.is(module) then
    local name = rawget(module, "name") or tostring(#list)
    if self[name] ~= nil then misuse.raise("Sequential: the name %s is taken", name) end
    self[name] = module
  end
  list[#list + 1] = module
  return self
end

function M.Sequential:forward(x)
  for _, step in ipairs(steps[self]) do x = step(x) end
  return x
end

return M
