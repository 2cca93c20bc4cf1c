--- Run directories: config.json, plan.json, metrics.jsonl (a line per epoch), steps.jsonl
-- (optional), changes.jsonl (a line per change of a format, if there is any), run.log, checkpoints,
-- TensorBoard event files, and the lock of the process that trains into it. mptl.measure adds
-- tensors.jsonl and gradient_error.jsonl.
local core = require "mptl.core"
local folder = require "mptl.folder"
local json = require "mptl.json"
local jsonl = require "mptl.jsonl"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local tensorboard = require "mptl.tensorboard"
local tensors = require "mptl.measure.tensors"

local M = {}

local Run = {}
Run.__index = Run

--- Fields of a line of metrics.jsonl, in this order. Accuracies in percent; losses that are NaN are
-- null.
M.metrics = {
  "epoch", "lr", "train_loss", "train_acc", "test_loss", "test_acc", "test_acc_fp32", "loss_scale_log2_min",
  "loss_scale_log2_max", "skipped_steps", "promotions", "ratio_lo", "bits_ratio", "peak_bytes", "images_per_s", "seconds",
}

local step_fields = { "step", "epoch", "lr", "loss", "acc", "loss_scale", "applied" }
local change_fields = { "step", "epoch", "operator", "role", "from", "to", "cause" }

local function exists(path)
  return lfs.attributes(path, "mode") ~= nil
end

-- The newest run directory of a script and policy. The names end in a time, so it is the last by
-- name.
local function newest(prefix)
  local parent, name = prefix:match "^(.*)/([^/]*)$"
  local best
  if not exists(parent) then return nil end
  for entry in lfs.dir(parent) do
    local is_ours = entry:sub(1, #name) == name and entry:match("^%d+%-%d+[%d-]*$", #name + 1)
    local is_run = is_ours and exists(("%s/%s/config.json"):format(parent, entry))
    if is_run and (not best or entry > best) then best = entry end
  end
  return best and ("%s/%s"):format(parent, best)
end

--- Chooses a run's directory.
-- @param cfg the configuration: out, resume, name, policy
-- @return the directory; the checkpoint to continue from, or nil to begin anew
function M.choose(cfg)
  local prefix = ("runs/%s-%s-"):format(cfg.name, cfg.policy)
  local dir = cfg.out
  if cfg.resume then
    dir = dir or newest(prefix)
    if not dir then misuse.usage("--resume: no run in %s*; --out names the directory of another", prefix) end
    if not exists(dir .. "/config.json") then misuse.usage("--resume: %s holds no run", dir) end
    local checkpoint = dir .. "/last.safetensors"
    return dir, exists(checkpoint) and checkpoint or nil
  end
  if dir then
    if exists(dir .. "/config.json") then
      misuse.usage("--out %s: holds a run already; --resume goes on with it, another directory begins anew", dir)
    end
    return dir
  end
  local base, n = prefix .. os.date "%Y%m%d-%H%M%S", 1
  dir = base
  while exists(dir) do
    n = n + 1
    dir = ("%s-%d"):format(base, n)
  end
  return dir
end

-- Locks the run directory for this process, until it ends: two processes must not train into one.
local function take(dir)
  return core.lock(dir .. "/lock") or misuse.usage("--out %s: another process trains into it", dir)
end

--- Whether another process trains into a run directory now.
-- @param dir the directory
-- @return true or false
function M.is_locked(dir)
  local known, taken = pcall(core.is_locked, dir .. "/lock") -- training into it reports the error
  return known and taken
end

-- Removes temporary files of a process that was killed while it wrote files here. The lock makes
-- sure that no other process is writing these; sweeps write other files.
local function remove_remains(dir)
  for name in lfs.dir(dir) do
    local file = name:match "^(.+)%.tmp%-%x+$"
    if file and (file:find "%.safetensors$" or file:find "%.jsonl?$") then os.remove(("%s/%s"):format(dir, name)) end
  end
end

-- The settings of the process that trained into a directory before; an empty table if there was
-- none.
local function settings_before(dir)
  local file <close> = core.open(dir .. "/config.json")
  local settings = file and json.decode(file:read "a" or "")
  return type(settings) == "table" and settings or {}
end

-- Cuts metrics.jsonl back, and notes which epochs up to the last one have no line in it.
local function keep_metrics(self, last)
  local path, has, missing, first = self.dir .. "/metrics.jsonl", {}, 0, nil
  for _, line in ipairs(jsonl.keep_until(path, "epoch", last)) do
    local metrics = json.decode(line)
    if type(metrics) == "table" and metrics.epoch then
      self.history[#self.history + 1] = metrics
      has[metrics.epoch] = true
    end
  end
  for epoch = last, 1, -1 do
    if not has[epoch] then missing, first = missing + 1, epoch end
  end
  if missing > 0 then
    self:miss("%s: lacks %d of the %d lines before the checkpoint, the first of them of epoch %d", path, missing, last, first)
  end
end

-- Cuts steps.jsonl and changes.jsonl back, and notes lines that the checkpoint relies on and that
-- are missing.
local function keep_lines(self, resumed)
  local changes = #jsonl.keep_until(self.dir .. "/changes.jsonl", "step", resumed.step)
  if changes < (resumed.changes or 0) then
    self:miss("%s/changes.jsonl: lacks %d of the %d lines before the checkpoint", self.dir, resumed.changes - changes,
      resumed.changes)
  end
  self:keep("steps.jsonl", "step", resumed.step, self.before.steps_every)
end

-- Opens a file of lines, which Run:sync and Run:close then know.
local function open_lines(self, name)
  local file = jsonl.open(("%s/%s"):format(self.dir, name))
  table.insert(self.files, file)
  return file
end

--- Opens a run directory; makes it if it does not exist. Cuts all its files back to the checkpoint.
-- @param dir the directory
-- @param files {config = table, plan = table, steps = whether to write steps.jsonl, resume =
--   whether it may hold a run already}
-- @param resumed {epoch =, step =, changes = or nil} of the checkpoint; 0 before the first
-- @return the run. Its field history has the metrics of earlier epochs; its field missing is a list
--   of messages about lines that the checkpoint relies on and that are missing
function M.open(dir, files, resumed)
  folder.make(dir)
  local locked = take(dir)
  if not files.resume and exists(dir .. "/config.json") then misuse.usage("--out %s: holds a run already", dir) end
  remove_remains(dir)
  local self = setmetatable({
    dir = dir, last = dir .. "/last.safetensors", best = dir .. "/best.safetensors", lock_file = locked,
    before = settings_before(dir), history = {}, missing = {}, files = {},
  }, Run)
  keep_metrics(self, resumed.epoch)
  keep_lines(self, resumed)
  tensorboard.cut(dir, function(tag, step) return step <= (tensors.is_tag(tag) and resumed.step or resumed.epoch) end)
  for _, name in ipairs { "config", "plan" } do
    core.write_file(("%s/%s.json"):format(dir, name), { json.encode(files[name], { indent = true }), "\n" })
  end
  self.metrics_file = open_lines(self, "metrics.jsonl")
  self.log_file = open_lines(self, "run.log")
  if files.steps then self.steps_file = open_lines(self, "steps.jsonl") end
  self.events = tensorboard.open(dir)
  table.insert(self.files, self.events)
  return self
end

--- Notes that a file lacks something that the checkpoint relies on.
-- @param format as in string.format
-- @param ... its arguments
function Run:miss(format, ...)
  self.missing[#self.missing + 1] = format:format(...)
end

--- Cuts back a file of lines that an earlier process may have written, and notes when the last line
-- before the checkpoint is missing.
-- @param name name of the file
-- @param field "step" or "epoch", which lines begin with
-- @param last step or epoch of the checkpoint
-- @param every the earlier process wrote every nth line; nil when it wrote none
function Run:keep(name, field, last, every)
  local path = ("%s/%s"):format(self.dir, name)
  local lines = jsonl.keep_until(path, field, last)
  local due = math.type(every) == "integer" and every > 0 and last - last % every or 0
  if due == 0 then return end
  local ends = #lines > 0 and jsonl.place(lines[#lines], field) or 0
  if ends < due then
    self:miss("%s: %s, a line of %s %d was written before the checkpoint", path,
      ends > 0 and ("ends with a line of %s %d"):format(field, ends) or "has no line", field, due)
  end
end

--- Waits until everything is on the disk, before a checkpoint that relies on it is written.
function Run:sync()
  for _, file in ipairs(self.files) do file:sync() end
end

--- Adds an epoch's line to metrics.jsonl and to the event file.
-- @param m the metrics, by M.metrics
-- @return the line, without its end
function Run:metrics(m)
  local fields = {}
  for _, field in ipairs(M.metrics) do fields[field] = m[field] == nil and json.null or m[field] end
  local line = json.encode(json.object(M.metrics, fields))
  self.metrics_file:append(line)
  self.events:add(m.epoch, {
    { "train/loss", m.train_loss }, { "train/accuracy", m.train_acc }, { "test/loss", m.test_loss },
    { "test/accuracy", m.test_acc }, { "test/accuracy_fp32", m.test_acc_fp32 }, { "lr", m.lr },
    { "loss_scale/log2_min", m.loss_scale_log2_min }, { "loss_scale/log2_max", m.loss_scale_log2_max },
    { "precision/promotions", m.promotions }, { "precision/ratio_lo", m.ratio_lo }, { "precision/bits_ratio", m.bits_ratio },
    { "skipped_steps", m.skipped_steps }, { "images_per_s", m.images_per_s }, { "peak_bytes", m.peak_bytes },
  })
  return line
end

--- Adds a step to steps.jsonl, if the run has one.
-- @param fields {step =, epoch =, lr =, loss =, acc =, loss_scale =, applied =}
function Run:step(fields)
  if self.steps_file then self.steps_file:append(json.encode(json.object(step_fields, fields))) end
end

--- Adds a change of a tensor's format to changes.jsonl.
-- @param step the step before it, from 1
-- @param epoch the epoch of that step, from 1
-- @param change {operator = name, role =, from =, to = formats, cause = "overflow" or "hook"}
function Run:change(step, epoch, change)
  self.changes_file = self.changes_file or open_lines(self, "changes.jsonl")
  local fields = { step = step, epoch = epoch }
  for key, value in pairs(change) do fields[key] = value end
  self.changes_file:append(json.encode(json.object(change_fields, fields)))
end

--- Adds a line to run.log.
-- @param format as in string.format
-- @param ... its arguments
function Run:log(format, ...)
  self.log_file:append(("%s %s"):format(os.date "%Y-%m-%d %H:%M:%S", format:format(...)))
end

--- Closes the files and releases the lock.
function Run:close()
  for _, file in ipairs(self.files) do file:close() end
  local ok, message = self.lock_file:close()
  if not ok then error(("cannot write %s/lock: %s"):format(self.dir, message), 0) end
end

return M
