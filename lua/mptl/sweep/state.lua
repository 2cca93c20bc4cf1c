--- How far a run of a sweep is, told from its directory alone: so a sweep that was killed goes on, and several sweeps of one
-- file, on one machine or on many, share the work.
local checkpoint = require "mptl.checkpoint"
local configuration = require "mptl.configuration"
local core = require "mptl.core"
local json = require "mptl.json"
local misuse = require "mptl.misuse"
local lfs = require "lfs"
local options = require "mptl.options"
local run_directory = require "mptl.run"

local M = {}

-- Settings that config.json does not keep as they are given: it has names where these may be paths.
local renamed = { script = true, policy = true }

local function slurp(path)
  local file = core.open(path)
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

-- Lines of metrics.jsonl that are whole, with what is told of a run.
local function read_metrics(dir)
  local list = {}
  local whole = (slurp(dir .. "/metrics.jsonl") or ""):match "^.*\n" or ""
  for line in whole:gmatch "[^\n]+" do
    local record = json.decode(line)
    local told = type(record) == "table"
    for _, field in ipairs { "test_acc", "test_acc_fp32", "ratio_lo" } do
      told = told and type(record[field]) == "number"
    end
    if told then list[#list + 1] = record end
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

-- Epochs that the checkpoint, from which a run goes on, has finished; nil where there is none.
local function saved_epochs(dir)
  local path = dir .. "/last.safetensors"
  if not lfs.attributes(path, "mode") then return nil end
  local ok, state = pcall(checkpoint.state, path)
  return ok and state and state.epoch or 0 -- going on from it, the run says what is wrong with it
end

-- Finished epochs. That is for the checkpoint to say: lines may be lost, or ahead of it. Where there is none, all lines tell of a
-- finished run that was cleared of its checkpoints; others begin anew.
local function finished_epochs(saved, metrics, epochs)
  return saved or (#metrics >= epochs and epochs or 0)
end

--- The state of a run.
-- @param run of a loaded sweep
-- @param dir its directory
-- @return {state = "new", "begun", "running", "done" or "failed", epoch =, epochs = (nil when new), last = the last epoch's
-- metrics or nil, message = why it failed}
function M.of(run, dir)
  local text = slurp(dir .. "/config.json")
  local config = text and json.decode(text)
  local locked = run_directory.is_locked(dir) -- before metrics are read: what ends meanwhile counts as running still
  if type(config) ~= "table" then
    local failure = not locked and slurp(dir .. "/failed")
    return {
      state = locked and "running" or failure and "failed" or "new", epoch = 0,
      message = failure and failure:match "[^\n]*" or nil,
    }
  end
  check_settings(run, dir, config)
  local row = options.by_name.epochs
  local epochs = options.check(row, config.epochs)
  if not epochs then
    misuse.usage("%s/config.json: epochs: %s, accepted are whole numbers from %d to %d", dir, tostring(config.epochs), row.min,
      row.max)
  end
  local saved = saved_epochs(dir) -- first: its line is there when it is
  local metrics = read_metrics(dir)
  local result = { epoch = finished_epochs(saved, metrics, epochs), epochs = epochs }
  for _, line in ipairs(metrics) do
    local ahead = locked and math.type(line.epoch) == "integer" and line.epoch > result.epoch and line.epoch <= epochs
    if ahead then result.epoch = line.epoch end -- its checkpoint is still being written
    if line.epoch == result.epoch then result.last = line end
  end
  local failure = slurp(dir .. "/failed")
  if locked then
    result.state = "running" -- after the last epoch, too
  elseif result.epoch >= epochs then
    result.state = "done"
  elseif failure then
    result.state, result.message = "failed", failure:match "[^\n]*"
  else
    result.state = "begun"
  end
  return result
end

--- Takes note that a run has failed, so that it is not tried again and again.
-- @param dir its directory
-- @param code exit status
-- @return why, one line
function M.fail(dir, code)
  local said = (slurp(dir .. "/output.log") or ""):sub(-4096) -- the search below goes on from each byte of a line
  local message = said:match "([^\n]+)\n*$" or "no message"
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
