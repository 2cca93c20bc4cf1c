--- Recording: runs a model on a symbolic input and keeps the operators it calls in an engine graph.
-- Operators are named by the path of the module that makes them, as PyTorch names it ("layer1.0.conv1"); operators called
-- as functions (nn.relu(x), x + y) by the path of the module whose forward calls them ("layer1.0.relu", "layer1.0.relu_2").
local core = require "mptl.core"
local misuse = require "mptl.misuse"
local Module = require "mptl.nn.module"
local Value = require "mptl.nn.value"

local Recorder = {}
Recorder.__index = Recorder

local function join(path, name)
  return path == "" and name or path .. "." .. name
end

--- A fresh recording.
-- @return the recorder
function Recorder.new()
  return setmetatable({
    graph = core.graph(),
    paths = {}, -- module -> path
    used = {},  -- operator names
    stack = {}, -- modules whose forward is running, innermost last
  }, Recorder)
end

-- The module's path and those of everything below it.
function Recorder:name_tree(module, path)
  if self.paths[module] then return end
  self.paths[module] = path
  for name, child in Module.children(module) do self:name_tree(child, join(path, name)) end
end

function Recorder:path()
  local top = self.stack[#self.stack]
  return top and self.paths[top] or ""
end

-- The name itself, or with _2, _3 ... behind it when it is taken.
function Recorder:unique(name)
  local result, n = name, 1
  while self.used[result] do
    n = n + 1
    result = name .. "_" .. n
  end
  return result
end

--- Runs a module's forward with its path as the current one.
-- @param module the module
-- @param ... what it is called with
-- @return what forward returns
function Recorder:run(module, ...)
  if not self.paths[module] then
    local name = rawget(module, "name") or module.class_name:lower()
    self:name_tree(module, self:unique(join(self:path(), name)))
  end
  -- Not popped on errors: the stack then tells record() where it happened.
  self.stack[#self.stack + 1] = module
  local results = table.pack(module:forward(...))
  self.stack[#self.stack] = nil
  return table.unpack(results, 1, results.n)
end

--- Appends an operator.
-- @param kind the engine's name of it
-- @param inputs list of values
-- @param options {name =, attributes =, parameters = true when it has any}
-- @return its output
function Recorder:call(kind, inputs, options)
  options = options or {}
  local name = options.name or join(self:path(), kind)
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
  self.used[name] = true
  return Value.new(self, id, kind), name
end

--- Sets how a parameter starts.
-- @param name of the parameter
-- @param dims its dimensions
-- @param init an initializer (nn.init)
function Recorder:set_init(name, dims, init)
  misuse.call(self.graph.set_init, self.graph, name, init(dims))
end

-- An error inside a model, with the path of the module it happened in, unless the message has it already.
local function with_path(recorder, message)
  local module = recorder.stack[#recorder.stack]
  if type(message) ~= "string" or not module then return message end
  local path = recorder.paths[module]
  if path == "" or message:find(path .. " (", 1, true) or message:find(path .. ".", 1, true) then return message end
  local position, text = message:match("^(.-:%d+: )(.*)$")
  return ("%s%s (%s): %s"):format(position or "", path, module.class_name, text or message)
end

local function run_model(recorder, model, x, cfg)
  local y
  if Module.is(model) then
    recorder:name_tree(model, "")
    y = model(x)
  else
    y = model(x, cfg)
  end
  if not Value.is(y) then
    misuse.raise("model: its forward returned %s, must return a symbolic value", Module.is(y) and "a module" or type(y))
  end
  return y
end

local function append_loss(recorder, y, classes)
  if y.kind == "nll_loss" then return end
  if #y.shape ~= 1 then
    misuse.raise("model: ends in shape %s, must end in one number per class (nn.Flatten and nn.Linear)",
      table.concat(y.shape, "x"))
  end
  if classes and y.shape[1] ~= classes then
    misuse.raise("model: ends in %d numbers, the data set has %d classes", y.shape[1], classes)
  end
  if y.kind ~= "log_softmax" then y = recorder:call("log_softmax", { y }, { name = "log_softmax" }) end
  recorder:call("nll_loss", { y }, { name = "nll_loss" })
end

--- Records a model. Appends log_softmax and nll_loss where the model ends in logits.
-- @param model a module, or a function (x, cfg) over symbolic values
-- @param options {input = {c, h, w}, classes = number or nil, cfg = what a function model is given}
-- @return the engine's graph
-- @usage local graph = nn.record(nn.Sequential{ nn.Flatten(), nn.Linear{ 12, 10 } }, { input = { 3, 2, 2 }, classes = 10 })
function Recorder.record(model, options)
  misuse.check_fields("nn.record", options, { "input", "classes", "cfg" })
  if not Module.is(model) and type(model) ~= "function" then
    misuse.raise("model: %s, must be a module or a function (x, cfg)", type(model))
  end
  local recorder = Recorder.new()
  local x = Value.new(recorder, misuse.call(recorder.graph.input, recorder.graph, options.input), "input")
  recorder.used.input = true
  local ok, y = xpcall(run_model, function(message) return with_path(recorder, message) end, recorder, model, x, options.cfg)
  if not ok then error(y, 0) end
  append_loss(recorder, y, options.classes)
  return recorder.graph
end

return Recorder
