--- Checkpoints: safetensors files. Parameters and buffers have PyTorch's names, the optimizer's
-- state has names "optimizer.STATE.NAME" (of SGD: optimizer.momentum.NAME). Everything else about
-- the run, its training state, is JSON text in the metadata "mptl".
--
-- Checkpoints are sealed: the metadata has checksums of the header and of all tensors. The training
-- state says so, to detect that they were lost.
local json = require "mptl.json"
local optim = require "mptl.optim"
local safetensors = require "mptl.safetensors"

local M = {}

local state_prefix = "optimizer."

-- The arrays that the optimizer keeps for a parameter: list of {name in files, name of the state}.
local function states_of(model, parameter)
  local list = {}
  for i, state in ipairs(optim.states(model:optimizer())) do
    list[i] = { state_prefix .. state .. "." .. parameter, state }
  end
  return list
end

-- A copy of a value that mptl.json encodes without a loss: floats with 17 digits, and inf and NaN,
-- which JSON does not have, as {"float": "inf"}. Fields are in alphabetical order, so that equal
-- states make equal files.
local function lossless(value)
  if type(value) == "table" then
    local copy, order = {}, {}
    for k, v in pairs(value) do
      copy[k] = lossless(v)
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

-- Reverses lossless on a decoded value. Changes its tables.
local function restored(value)
  if type(value) ~= "table" then return value end
  if value.float then return special[value.float] end
  for k, v in pairs(value) do value[k] = restored(v) end
  return value
end

-- All tensors of a checkpoint, in the order of the file.
local function tensors_of(graph, model, step)
  local tensors, states = {}, {}
  for _, p in ipairs(graph:parameters()) do
    table.insert(tensors, { name = p.name, tensor = model:tensor(p.name) })
    local norm = p.name:match "^(.*)%.running_var$"
    if norm then
      local count = string.pack("<i8", step)
      table.insert(tensors, { name = norm .. ".num_batches_tracked", dtype = "I64", shape = {}, bytes = count })
    end
    for k, names in ipairs(p.buffer and {} or states_of(model, p.name)) do
      states[k] = states[k] or {}
      table.insert(states[k], { name = names[1], tensor = model:state(names[2], p.name) })
    end
  end
  for _, list in ipairs(states) do table.move(list, 1, #list, #tensors + 1, tensors) end
  return tensors
end

--- Writes a checkpoint; replaces an old file of that name at once or not at all.
-- @param path the file
-- @param graph the engine's graph
-- @param model the engine's model, with the optimizer's state that a training program gives it
-- @param state the training state, a table that JSON can hold; the field step, the number of steps
--   made, becomes num_batches_tracked of the batch norms
function M.save(path, graph, model, state)
  local tensors = tensors_of(graph, model, state.step)
  local copy = { sealed = true }
  for key, value in pairs(state) do copy[key] = value end
  safetensors.write(path, tensors, { format = "pt", mptl = json.encode(lossless(copy)) }, true)
end

local function shape_text(shape)
  return #shape == 0 and "scalar" or table.concat(shape, "x")
end

-- Raises an error unless the file has this tensor in this shape.
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

-- Raises an error if the file has a tensor that the network lacks. Ignores what mptl does not use:
-- an optimizer's state, counters of batches, and tensors of other types than F32.
local function check_unexpected(file, known)
  for _, name in ipairs(file.names) do
    local ignored = name:sub(1, #state_prefix) == state_prefix or name:find "num_batches_tracked$"
      or file.tensors[name].dtype ~= "F32"
    if not ignored and not known[name] then
      error(("%s: not a checkpoint of this network: it has %s, which the network has not"):format(file.path, name), 0)
    end
  end
end

--- Opens a checkpoint and reads its training state.
-- @param path the file
-- @return the training state, or nil when the file has none (parameters saved by PyTorch); the
--   opened file, for load
function M.state(path)
  local file = safetensors.open(path)
  local text = file.metadata.mptl
  if not text then return nil, file end
  local parsed, state, mistake = pcall(function()
    local value, message = json.decode(text)
    return restored(value), message
  end)
  if not parsed then state, mistake = nil, "nested too deep" end -- the only error that is raised there
  if type(state) ~= "table" then
    error(("%s: damaged: its state is no JSON object: %s"):format(path, mistake or type(state)), 0)
  end
  if state.sealed and not file.sums then error(("%s: damaged: it has lost its checksums"):format(path), 0) end
  state.sealed = nil
  return state, file
end

--- Reads the tensors of a checkpoint into a model. Checks all of them before it changes any.
-- @param file the opened file, from M.state
-- @param graph the engine's graph
-- @param model the engine's model
-- @param training whether to read the optimizer's state, too; the model has one after a training
--   program was made
function M.load(file, graph, model, training)
  local wanted, known = {}, {}
  for _, p in ipairs(graph:parameters()) do
    known[p.name] = true
    table.insert(wanted, { p.name, model:tensor(p.name) })
    for _, state in ipairs(training and not p.buffer and states_of(model, p.name) or {}) do
      table.insert(wanted, { state[1], model:state(state[2], p.name) })
    end
  end
  for _, entry in ipairs(wanted) do check_tensor(file, entry[1], entry[2]:size()) end
  check_unexpected(file, known)
  safetensors.check(file)
  for _, entry in ipairs(wanted) do safetensors.read(file, entry[1], entry[2]) end
end

return M
