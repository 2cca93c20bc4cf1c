--- Checkpoints: safetensors files. Parameters and buffers are under PyTorch's names, the optimizer's state is under
-- "optimizer.STATE.NAME" (SGD's: optimizer.momentum.NAME), and everything else about the run is JSON text in the metadata "mptl".
-- They are sealed: checksums of the header and of all tensors are beside it, and the state says that there are some.
local json = require "mptl.json"
local optim = require "mptl.optim"
local safetensors = require "mptl.safetensors"

local M = {}

local state_prefix = "optimizer."

-- The names of the state of a model's parameter: {name in files, name of the state}.
local function states_of(model, parameter)
  local list = {}
  for i, state in ipairs(optim.states(model:optimizer())) do
    list[i] = { state_prefix .. state .. "." .. parameter, state }
  end
  return list
end

-- JSON that gives back every number exactly: floats in 17 digits, and inf and NaN, which JSON does not have, as {"float": "inf"}.
-- Fields are in alphabetical order, so that equal states are equal files.
local function exact(value)
  if type(value) == "table" then
    local copy, order = {}, {}
    for k, v in pairs(value) do
      copy[k] = exact(v)
      order[#order + 1] = type(k) == "string" and k or nil
    end
    table.sort(order)
    return #order > 0 and json.object(order, copy) or copy
  elseif math.type(value) ~= "float" then
    return value
  end
  local text = ("%.17g"):format(value)
  if not text:find "%d" then return { float = text:gsub("^-nan$", "nan") } end
  if not text:find "[.e]" then text = text .. ".0" end
  return setmetatable({}, { __tojson = function() return text end })
end

local special = { ["inf"] = math.huge, ["-inf"] = -math.huge, ["nan"] = 0 / 0 }

local function inexact(value)
  if type(value) ~= "table" then return value end
  if value.float then return special[value.float] end
  for k, v in pairs(value) do value[k] = inexact(v) end
  return value
end

--- Writes a checkpoint; the old file of that name is replaced at once or not at all.
-- @param path the file
-- @param graph the engine's graph
-- @param model the engine's model, with the optimizer's state that a training program gives it
-- @param state table of whatever JSON can hold; the field step (steps made) becomes the batch norms' num_batches_tracked
function M.save(path, graph, model, state)
  local tensors, states = {}, {}
  for _, p in ipairs(graph:parameters()) do
    table.insert(tensors, { name = p.name, tensor = model:tensor(p.name) })
    local norm = p.name:match "^(.*)%.running_var$"
    if norm then
      local count = string.pack("<i8", state.step)
      table.insert(tensors, { name = norm .. ".num_batches_tracked", dtype = "I64", shape = {}, bytes = count })
    end
    for k, names in ipairs(p.buffer and {} or states_of(model, p.name)) do
      states[k] = states[k] or {}
      table.insert(states[k], { name = names[1], tensor = model:state(names[2], p.name) })
    end
  end
  for _, list in ipairs(states) do table.move(list, 1, #list, #tensors + 1, tensors) end
  local copy = { sealed = true }
  for key, value in pairs(state) do copy[key] = value end
  safetensors.write(path, tensors, { format = "pt", mptl = json.encode(exact(copy)) }, true)
end

local function shape_text(shape)
  return #shape == 0 and "scalar" or table.concat(shape, "x")
end

-- An error unless the file has this tensor in this shape.
local function check_tensor(file, name, shape)
  local entry = file.tensors[name]
  local function bad(what, ...)
    error(("%s: not a checkpoint of this network: %s %s"):format(file.path, name, what:format(...)), 0)
  end
  if not entry then bad "is missing" end
  if entry.dtype ~= "F32" then bad("is of type %s, must be F32", entry.dtype) end
  if shape_text(entry.shape) ~= shape_text(shape) then
    bad("has the shape %s, the network's is %s", shape_text(entry.shape), shape_text(shape))
  end
end

local function check_unexpected(file, known)
  for _, name in ipairs(file.names) do
    local extra = name:sub(1, #state_prefix) == state_prefix or name:find "num_batches_tracked$"
      or file.tensors[name].dtype ~= "F32" -- of a type that is not used here, whatever it is for
    if not extra and not known[name] then
      error(("%s: not a checkpoint of this network: it has %s, which the network has not"):format(file.path, name), 0)
    end
  end
end

--- The state in a checkpoint, without its tensors.
-- @param path the file
-- @return what was given to save, or nil when the file has none (parameters saved by PyTorch); and the opened file, for load
function M.state(path)
  local file = safetensors.open(path)
  local text = file.metadata.mptl
  if not text then return nil, file end
  local parsed, state, mistake = pcall(function()
    local value, message = json.decode(text)
    return inexact(value), message
  end)
  if not parsed then state, mistake = nil, "nested too deep" end -- nothing else raises there
  if type(state) ~= "table" then
    error(("%s: damaged: its state is no JSON object: %s"):format(path, mistake or type(state)), 0)
  end
  if state.sealed and not file.sums then error(("%s: damaged: it has lost its checksums"):format(path), 0) end
  state.sealed = nil
  return state, file
end

--- Reads a checkpoint into a model. Everything is checked before anything is changed.
-- @param file as M.state returned it
-- @param graph the engine's graph
-- @param model the engine's model
-- @param training whether to read the optimizer's state too (a training program must have been made)
function M.load(file, graph, model, training)
  local wanted, known = {}, {}
  for _, p in ipairs(graph:parameters()) do
    known[p.name] = true
    table.insert(wanted, { p.name, model:tensor(p.name) })
    for _, state in ipairs(training and not p.buffer and states_of(model, p.name) or {}) do
      table.insert(wanted, { state[1], model:state(state[2], p.name) })
    end
  end
  for _, w in ipairs(wanted) do check_tensor(file, w[1], w[2]:size()) end
  check_unexpected(file, known)
  safetensors.check(file)
  for _, w in ipairs(wanted) do safetensors.read(file, w[1], w[2]) end
end

return M
