--- For continuing a run: the formats of an assignment as data, checks of a checkpoint's state, and
-- whether two runs have the same settings.
local configuration = require "mptl.configuration"
local json = require "mptl.json"
local misuse = require "mptl.misuse"
local options = require "mptl.options"

local M = {}

local roles = { "v", "dv", "theta", "dtheta" }

--- The formats of all tensors.
-- @param plan the result of script.plan
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

local function set_format(path, tensor, saved)
  local role, operator = tensor.role, tensor.operator.name
  local valid = type(saved) == "table" and type(saved[1]) == "string" and type(saved[2]) == "boolean"
  if not valid then
    error(("%s: damaged, or of another network: no format for %s of %s"):format(path, role, operator), 0)
  end
  local format, is_low = saved[1], saved[2]
  if tensor.format == format and tensor.is_low == is_low then return end
  if is_low then tensor:low() else tensor:high() end
  if tensor.format == format then return end
  local ok, message = pcall(tensor.set, tensor, format)
  if not ok then
    error(("%s: damaged: the format for %s of %s: %s"):format(path, role, operator, tostring(message)), 0)
  end
end

--- Gives all tensors the formats in a list from M.formats.
-- @param path the file that the list comes from, for messages
-- @param plan the result of script.plan
-- @param list the result of M.formats
function M.set_formats(path, plan, list)
  for i, op in ipairs(plan.graph:operators()) do
    for _, role in ipairs(roles) do
      if op[role] then set_format(path, op[role], (list[i] or {})[role]) end
    end
  end
end

local most = 1 << 53 -- of counts

-- The fields of a training state that only a continued training reads: for each the name of a
-- check, with "?" where the field may be missing, or a table of fields.
local state_fields = {
  batch = "batch", updates = "count", promotions = "count", changes = "count?", best = "number?",
  sums = {
    loss = "number", correct = "count", count = "count", steps = "count?", skipped = "count", nan_steps = "count",
    seconds = "number", bad_images = "count?", scale_min = "positive?", scale_max = "positive?",
  },
  loss_scale = { scale = "positive", good = "count" },
}

-- The fields that an evaluation reads as well.
local evaluated_fields = { epoch = "epoch", step = "count", formats = "list", settings = "table?" }

-- Checks by name: what is accepted, function (value) -> whether it is.
local checks = {
  number = { "numbers", function(v) return type(v) == "number" end },
  positive = { "numbers above 0", function(v) return type(v) == "number" and v > 0 end },
  table = { "objects", function(v) return type(v) == "table" end },
  list = { "lists of objects", function(v)
    if type(v) ~= "table" then return false end
    for _, entry in pairs(v) do
      if type(entry) ~= "table" then return false end
    end
    return true
  end },
}

local function count_to(last)
  local function accepts(v) return math.type(v) == "integer" and v >= 0 and v <= last end
  return { ("whole numbers from 0 to %d"):format(last), accepts }
end

checks.count, checks.epoch = count_to(most), count_to(options.by_name.epochs.max)

local function shown(value)
  return type(value) == "string" and ("%q"):format(value:sub(1, 40)):gsub("\n", "n") or misuse.text(value)
end

-- batch: the check of the field batch.
local function check_fields(path, where, state, fields, batch)
  for _, name in ipairs(misuse.names(fields)) do
    local field, value = fields[name], state[name]
    local check, optional = "table", ""
    if type(field) == "string" then check, optional = field:match "^(%a+)(%??)$" end
    local text, accepts = table.unpack(check == "batch" and batch or checks[check])
    if not (value == nil and optional == "?") and not accepts(value) then
      error(("%s: damaged: its state: %s is %s, accepted are %s"):format(path, where .. name, shown(value), text), 0)
    end
    if type(field) == "table" then check_fields(path, where .. name .. ".", value, field, batch) end
  end
end

--- Raises an error that names a wrong field of a checkpoint's state, among those that an evaluation
-- reads.
-- @param path the checkpoint
-- @param state the result of checkpoint.state
function M.check_evaluated(path, state)
  check_fields(path, "", state, evaluated_fields)
end

--- The same for the other fields, which only a continued training reads.
-- @param path the checkpoint
-- @param state the result of checkpoint.state
-- @param batches number of batches of an epoch
function M.check_continued(path, state, batches)
  check_fields(path, "", state, state_fields, count_to(batches))
end

-- Whether two settings are equal; one may come from JSON, where null is nil.
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

local function text(value)
  if type(value) == "table" then return (json.encode(value)) end
  return value == nil and "not given" or tostring(value)
end

--- Raises an error that names the settings in which a run and its continuation differ, if any do.
-- @param path the checkpoint
-- @param now the settings (configuration.settings)
-- @param saved the settings in the checkpoint
function M.check_settings(path, now, saved)
  local conflicts, names = {}, {}
  now, saved = configuration.essential(now), configuration.essential(saved)
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
