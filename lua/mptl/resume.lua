--- For continuing a run: the formats of an assignment as data, and whether two runs have the same settings.
local json = require "mptl.json"
local misuse = require "mptl.misuse"
local options = require "mptl.options"

local M = {}

local roles = { "v", "dv", "theta", "dtheta" }

--- The formats of all tensors.
-- @param plan as script.plan returned it
-- @return list by operator of {role = {format, whether it counts as low}}
function M.formats(plan)
  local list = {}
  for i, op in ipairs(plan.graph:operators()) do
    list[i] = {}
    for _, role in ipairs(roles) do
      if op[role] then list[i][role] = { op[role].format, op[role].is_low } end
    end
  end
  return list
end

--- Gives all tensors the formats that M.formats returned.
-- @param path the file that the list comes from, for messages
-- @param plan as script.plan returned it
-- @param list what M.formats returned
function M.set_formats(path, plan, list)
  for i, op in ipairs(plan.graph:operators()) do
    for _, role in ipairs(roles) do
      local tensor, saved = op[role], (list[i] or {})[role]
      if tensor and not saved then
        error(("%s: damaged, or of another network: no format for %s of %s"):format(path, role, op.name), 0)
      end
      if tensor and (tensor.format ~= saved[1] or tensor.is_low ~= saved[2]) then
        if saved[2] then tensor:low() else tensor:high() end
        if tensor.format ~= saved[1] then tensor:set(saved[1]) end
      end
    end
  end
end

local function check_count(path, what, value, most)
  if math.type(value) == "integer" and value >= 0 and value <= most then return end
  error(("%s: damaged: %s is %s, accepted are whole numbers from 0 to %d"):format(path, what, tostring(value), most), 0)
end

--- An error for an epoch or a step of a checkpoint's state that no training gives.
-- @param path the file
-- @param state the checkpoint's
function M.check_place(path, state)
  check_count(path, "epoch", state.epoch, options.by_name.epochs.max)
  check_count(path, "step", state.step, 1 << 53)
end

--- The same for all counts and sums of the state.
-- @param path the file
-- @param state the checkpoint's
-- @param batches of an epoch
function M.check_state(path, state, batches)
  local function check(...) check_count(path, ...) end
  M.check_place(path, state)
  check("batch", state.batch, batches)
  for _, name in ipairs { "updates", "promotions" } do check(name, state[name], 1 << 53) end
  for _, name in ipairs { "sums", "loss_scale", "formats" } do
    if type(state[name]) ~= "table" then error(("%s: damaged: it has no %s"):format(path, name), 0) end
  end
  if state.sums.steps ~= nil then check("sums.steps", state.sums.steps, 1 << 53) end -- older ones have none
  for _, name in ipairs { "correct", "count", "skipped", "nan_steps" } do check("sums." .. name, state.sums[name], 1 << 53) end
end

-- Settings that may differ between a run and its continuation: they do not change what is computed, or (threads, device) only the
-- order of sums.
local free = {
  "path", "version", "data", "threads", "out", "resume", "quick", "quiet", "json", "steps_every", "tensors_every", "exponents",
  "gradient_error", "on_nan", "on_skipped", "on_bad_image", "device", "storage",
}

-- Two settings as JSON knows them: equal?
local function same(a, b)
  if a == json.null then a = nil end
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do
    if not same(v, b[k]) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return true
end

--- The settings that say what is computed; where a run is and what it prints are left out.
-- @param settings what script.settings returned
-- @return a table
function M.essential(settings)
  local result = {}
  for name, value in pairs(settings) do result[name] = value end
  for _, name in ipairs(free) do result[name] = nil end
  return result
end

local function text(value)
  if type(value) == "table" then return (json.encode(value)) end
  return value == nil and "not given" or tostring(value)
end

--- An error that names the settings in which a run and its continuation differ, if there are any.
-- @param path the checkpoint
-- @param now the settings (script.settings)
-- @param saved those in the checkpoint
function M.check_settings(path, now, saved)
  local conflicts, names = {}, {}
  now, saved = M.essential(now), M.essential(saved)
  for name in pairs(now) do names[name] = true end
  for name in pairs(saved) do names[name] = true end
  for _, name in ipairs(misuse.names(names)) do
    if not same(now[name], saved[name]) then
      conflicts[#conflicts + 1] = ("%s is %s, was %s"):format(name, text(now[name]), text(saved[name]))
    end
  end
  if #conflicts > 0 then misuse.usage("--resume: %s was made with other settings: %s", path, table.concat(conflicts, "; ")) end
end

return M
