--- For continuing a run: the formats of an assignment as data, and whether two runs have the same settings.
local configuration = require "mptl.configuration"
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
      if tensor and (type(saved) ~= "table" or type(saved[1]) ~= "string" or type(saved[2]) ~= "boolean") then
        error(("%s: damaged, or of another network: no format for %s of %s"):format(path, role, op.name), 0)
      end
      if tensor and (tensor.format ~= saved[1] or tensor.is_low ~= saved[2]) then
        if saved[2] then tensor:low() else tensor:high() end
        local ok, message = true, nil
        if tensor.format ~= saved[1] then ok, message = pcall(tensor.set, tensor, saved[1]) end
        if not ok then
          error(("%s: damaged: the format for %s of %s: %s"):format(path, role, op.name, tostring(message)), 0)
        end
      end
    end
  end
end

local most = 1 << 53 -- of what is counted

-- What a training state has to hold: the kind of each field, "?" behind it where it may be missing. Tables are of fields.
local state_fields = {
  batch = "batch", updates = "count", promotions = "count", changes = "count?", best = "number?",
  sums = {
    loss = "number", correct = "count", count = "count", steps = "count?", skipped = "count", nan_steps = "count",
    seconds = "number", bad_images = "count?", scale_min = "positive?", scale_max = "positive?",
  },
  loss_scale = { scale = "positive", good = "count" },
}

-- What an evaluation takes, too.
local evaluated_fields = { epoch = "epoch", step = "count", formats = "list", settings = "table?" }

local kinds = {
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

kinds.count, kinds.epoch = count_to(most), count_to(options.by_name.epochs.max)

local function shown(value)
  return type(value) == "string" and ("%q"):format(value:sub(1, 40)):gsub("\n", "n") or misuse.text(value)
end

local function check_fields(path, where, state, wanted, batch)
  for _, name in ipairs(misuse.names(wanted)) do
    local kind, value = wanted[name], state[name]
    local must, optional = "table", ""
    if type(kind) == "string" then must, optional = kind:match "^(%a+)(%??)$" end
    local text, accepts = table.unpack(must == "batch" and batch or kinds[must])
    if not (value == nil and optional == "?") and not accepts(value) then
      error(("%s: damaged: its state: %s is %s, accepted are %s"):format(path, where .. name, shown(value), text), 0)
    end
    if type(kind) == "table" then check_fields(path, where .. name .. ".", value, kind, batch) end
  end
end

--- An error that names the field of a checkpoint's state that is not what it must be, of those that an evaluation takes.
-- @param path the checkpoint
-- @param state what checkpoint.state returned
function M.check_evaluated(path, state)
  check_fields(path, "", state, evaluated_fields)
end

--- The same for all that training goes on from.
-- @param path the checkpoint
-- @param state what checkpoint.state returned
-- @param batches of an epoch
function M.check_state(path, state, batches)
  M.check_evaluated(path, state)
  check_fields(path, "", state, state_fields, count_to(batches))
end

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

local function text(value)
  if type(value) == "table" then return (json.encode(value)) end
  return value == nil and "not given" or tostring(value)
end

--- An error that names the settings in which a run and its continuation differ, if there are any.
-- @param path the checkpoint
-- @param now the settings (configuration.settings)
-- @param saved those in the checkpoint
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
