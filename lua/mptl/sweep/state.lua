--- How far a run of a sweep is, from its directory alone. So a sweep that was killed can continue,
-- and several processes, on one machine or on many, can share the work of a sweep.
local checkpoint = require "mptl.checkpoint"
local configuration = require "mptl.configuration"
local core = require "mptl.core"
local json = require "mptl.json"
local misuse = require "mptl.misuse"
local lfs = require "lfs"
local options = require "mptl.options"
local run_directory = require "mptl.run"

local M = {}

-- Settings that may be paths, of which config.json has only the names.
local renamed = { script = true, policy = true }

local function slurp(path)
  local file = core.open(path)
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

-- The complete lines of metrics.jsonl that have the fields which a sweep shows.
local function read_metrics(dir)
  local list = {}
  local whole = (slurp(dir .. "/metrics.jsonl") or ""):match "^.*\n" or ""
  for line in whole:gmatch "[^\n]+" do
    local metrics = json.decode(line)
    local complete = type(metrics) == "table"
    for _, field in ipairs { "test_acc", "test_acc_fp32", "ratio_lo" } do
      complete = complete and type(metrics[field]) == "number"
    end
    if complete then list[#list + 1] = metrics end
  end
  return list
end

local function check_settings(run, dir, config)
  for name, value in pairs(run.settings) do
    local was = config[name]
    if was == json.null then was = nil end
    local may_differ = renamed[name] or not configuration.changes_results(name)
    if not may_differ and was ~= nil and was ~= value then
      misuse.usage("%s: was begun with other settings: %s is %s, was %s; another --out begins anew", dir, name,
        misuse.text(value), misuse.text(was))
    end
  end
end

-- The number of finished epochs in the run's last checkpoint; nil when there is no checkpoint.
local function saved_epochs(dir)
  local path = dir .. "/last.safetensors"
  if not lfs.attributes(path, "mode") then return nil end
  local ok, state = pcall(checkpoint.state, path)
  -- Of a damaged checkpoint: 0. The run will report what is wrong with it.
  return ok and state and state.epoch or 0
end

-- The number of finished epochs. The checkpoint decides: lines may be lost, or be ahead of it.
-- Without a checkpoint, a run with all its lines is finished, and somebody has removed its
-- checkpoints; other runs begin anew.
local function finished_epochs(saved, metrics, epochs)
  return saved or (#metrics >= epochs and epochs or 0)
end

-- The state of a run that has no config.json yet.
local function state_without_config(dir, locked)
  local failure = not locked and slurp(dir .. "/failed")
  return {
    state = locked and "running" or failure and "failed" or "new", epoch = 0,
    message = failure and failure:match "[^\n]*" or nil,
  }
end

-- The number of epochs that the run shall have.
local function wanted_epochs(dir, config)
  local row = options.by_name.epochs
  return options.check(row, config.epochs)
    or misuse.usage("%s/config.json: epochs: %s, accepted are whole numbers from %d to %d", dir, tostring(config.epochs),
      row.min, row.max)
end

-- {epoch = finished epochs, epochs = wanted ones, last = metrics of the last finished epoch}.
local function progress_of(dir, epochs, locked)
  local saved = saved_epochs(dir) -- before the metrics: the line of a checkpoint's epoch is written first
  local metrics = read_metrics(dir)
  local result = { epoch = finished_epochs(saved, metrics, epochs), epochs = epochs }
  for _, line in ipairs(metrics) do
    local ahead = locked and math.type(line.epoch) == "integer" and line.epoch > result.epoch and line.epoch <= epochs
    if ahead then result.epoch = line.epoch end -- its checkpoint is still being written
    if line.epoch == result.epoch then result.last = line end
  end
  return result
end

--- The state of a run.
-- @param run a run of a loaded sweep
-- @param dir its directory
-- @return {state = "new", "begun", "running", "done" or "failed", epoch =, epochs = (nil when new),
--   last = the last epoch's metrics or nil, message = why it failed}
function M.of(run, dir)
  local text = slurp(dir .. "/config.json")
  local config = text and json.decode(text)
  local locked = run_directory.is_locked(dir) -- before the rest is read: a run that ends now is still "running"
  if type(config) ~= "table" then return state_without_config(dir, locked) end
  check_settings(run, dir, config)
  local epochs = wanted_epochs(dir, config)
  local result = progress_of(dir, epochs, locked)
  local failure = slurp(dir .. "/failed")
  if locked then
    result.state = "running" -- even after its last epoch
  elseif result.epoch >= epochs then
    result.state = "done"
  elseif failure then
    result.state, result.message = "failed", failure:match "[^\n]*"
  else
    result.state = "begun"
  end
  return result
end

--- Notes that a run has failed, so that it is not tried again and again.
-- @param dir its directory
-- @param code exit status
-- @return why it failed, one line
function M.fail(dir, code)
  -- Not all of a long log: the pattern below would be slow.
  local output = (slurp(dir .. "/output.log") or ""):sub(-4096)
  local message = output:match "([^\n]+)\n*$" or "no message"
  if code > 128 then message = ("ended by signal %d; before: %s"):format(code - 128, message) end
  core.write_file(dir .. "/failed", { message, "\n" })
  return message
end

--- Forgets that a run has failed.
-- @param dir its directory
function M.retry(dir)
  os.remove(dir .. "/failed")
end

return M
