--- The recorder runs a network on a symbolic input and appends its operators to a graph of the
-- engine. An operator of a layer is named by the layer path, as in PyTorch ("layer1.0.conv1"). An
-- operator of a function (nn.relu(x), x + y) is named by the path of the module that calls it, and
-- its kind ("layer1.0.relu", "layer1.0.relu_2").
local core = require "mptl.core"
local functional = require "mptl.nn.functional"
local misuse = require "mptl.misuse"
local Module = require "mptl.nn.module"
local Value = require "mptl.nn.value"

local Recorder = {}
Recorder.__index = Recorder

local function join(path, name)
  return path == "" and name or path .. "." .. name
end

--- Makes a recorder with an empty graph.
-- @return the recorder
function Recorder.new()
  return setmetatable({
    graph = core.graph(),
    layer_paths = {}, -- module -> path
    roots = {},       -- paths of modules that are in no other module: path -> true
    used = {},        -- the operators' names: name -> n; name_2 to name_n are taken, too
    stack = {},       -- modules whose forward runs, the innermost one last
  }, Recorder)
end

-- Gives layer paths to a module and to all modules in it.
function Recorder:name_tree(module, path)
  if self.layer_paths[module] then return end
  self.layer_paths[module] = path
  for name, child in Module.children(module) do self:name_tree(child, join(path, name)) end
end

--- The layer path of the module whose forward runs.
-- @return the path; "" for the whole network
function Recorder:layer_path()
  local top = self.stack[#self.stack]
  return top and self.layer_paths[top] or ""
end

-- The name, with _2, _3, ... appended when it is taken.
function Recorder:unique(name)
  local n = self.used[name]
  if not n then return name end
  while self.used[name .. "_" .. n + 1] do n = n + 1 end
  self.used[name] = n
  return name .. "_" .. n + 1
end

-- A path for a module that is in no other module, with _2, _3, ... appended when it is taken.
function Recorder:root_path(path)
  local free, n = path, 1
  while self.used[free] or self.roots[free] do
    n = n + 1
    free = path .. "_" .. n
  end
  self.roots[free] = true
  return free
end

--- Runs a module's forward. Its operators are named by the module's path.
-- @param module the module
-- @param ... arguments of forward
-- @return the results of forward
function Recorder:run(module, ...)
  if not self.layer_paths[module] then
    local name = rawget(module, "name") or module.class_name:lower()
    self:name_tree(module, self:root_path(join(self:layer_path(), name)))
  end
  -- An error leaves the module on the stack, so that Recorder.record can name it.
  self.stack[#self.stack + 1] = module
  local results = table.pack(module:forward(...))
  self.stack[#self.stack] = nil
  return table.unpack(results, 1, results.n)
end

--- Appends an operator to the graph.
-- @param kind the engine's name of the operator
-- @param inputs list of symbolic values
-- @param options {name =, attributes =, parameters = whether the operator has parameters}
-- @return the output, a symbolic value; the name of the operator
function Recorder:call(kind, inputs, options)
  options = options or {}
  local name = options.name or join(self:layer_path(), kind)
  if options.parameters and self.used[name] then
    misuse.raise("%s (%s): called twice; two operators cannot share parameters", name, kind)
  end
  name = self:unique(name)
  local ids = {}
  for i, input in ipairs(inputs) do
    if input.recorder ~= self then misuse.raise("%s (%s): input %d is a value of another model", name, kind, i) end
    ids[i] = input.id
  end
  local id = misuse.call(self.graph.add, self.graph, kind, name, ids, options.attributes or {})
  self.used[name] = 1
  return Value.new(self, id, kind), name
end

--- Sets a parameter's initial values.
-- @param name name of the parameter
-- @param dims its dimensions
-- @param init an initializer (nn.init)
function Recorder:set_init(name, dims, init)
  misuse.call(self.graph.set_init, self.graph, name, init(dims))
end

-- Adds the layer path of the module in which an error was raised to the message, unless the message
-- has it.
local function with_layer_path(recorder, message)
  local module = recorder.stack[#recorder.stack]
  if type(message) ~= "string" or not module then return message end
  local path = recorder.layer_paths[module]
  if path == "" or message:find(path .. " (", 1, true) or message:find(path .. ".", 1, true) then return message end
  local position, text = message:match("^(.-:%d+: )(.*)$")
  return ("%s%s (%s): %s"):format(position or "", path, module.class_name, text or message)
end

local function run_network(recorder, network, x, cfg)
  local y
  if Module.is(network) then
    recorder:name_tree(network, "")
    y = network(x)
  else
    y = network(x, cfg)
  end
  if not Value.is(y) then
    misuse.raise("model: its forward returned %s, must return a symbolic value", Module.is(y) and "a module" or type(y))
  end
  return y
end

-- Appends the loss, unless the network has one.
local function append_loss(recorder, y, options)
  if recorder.graph:has_loss() then return end
  if #y.shape ~= 1 then
    misuse.raise("model: ends in shape %s, must end in one number per class (nn.Flatten and nn.Linear)",
      table.concat(y.shape, "x"))
  end
  local classes = options.classes
  if classes and y.shape[1] ~= classes then
    misuse.raise("model: ends in %d numbers, the data set has %d classes", y.shape[1], classes)
  end
  local loss = options.loss or functional.cross_entropy
  loss(y)
  if not recorder.graph:has_loss() then misuse.raise("loss: calls no loss, such as nn.cross_entropy(y)") end
end

--- Records a network, and its loss, unless the network has one.
-- @param network a module, or a function (x, cfg) that returns a symbolic value
-- @param options {input = {c, h, w}, classes = number or nil, loss = function (y) that calls a loss,
--   nn.cross_entropy by default, cfg = second argument of the network, if that is a function}
-- @return the engine's graph
-- @usage
-- local net = nn.Sequential { nn.Flatten(), nn.Linear { 12, 10 } }
-- local graph = nn.record(net, { input = { 3, 2, 2 }, classes = 10 })
function Recorder.record(network, options)
  misuse.check_fields("nn.record", options, { "input", "classes", "loss", "cfg" })
  if not Module.is(network) and type(network) ~= "function" then
    misuse.raise("model: %s, must be a module or a function (x, cfg)", type(network))
  end
  local recorder = Recorder.new()
  local input = misuse.call(recorder.graph.input, recorder.graph, options.input)
  local x = Value.new(recorder, input, "input")
  recorder.used.input = 1
  local function located(message) return with_layer_path(recorder, message) end
  local ok, y = xpcall(run_network, located, recorder, network, x, options.cfg)
  if not ok then error(y, 0) end
  append_loss(recorder, y, options)
  return recorder.graph
end

return Recorder
