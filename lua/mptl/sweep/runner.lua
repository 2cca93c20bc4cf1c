--- Runs a sweep's training runs as child processes, several at once.
local core = require "mptl.core"
local folder = require "mptl.folder"
local options = require "mptl.options"
local state = require "mptl.sweep.state"
local sweep = require "mptl.sweep"

local M = {}

local Runner = {}
Runner.__index = Runner

--- A runner.
-- @param runs list of runs of a loaded sweep
-- @param settings {out = directory of the run directories, jobs = how many runs at once, retry =
--   whether to try failed runs again, on_event = function (event, run, its state) with event
--   "begins", "done", "failed", "stopped" or "elsewhere", on_wait = function (runner), called about
--   twice a second}
-- @return the runner; its fields are running = {pid = run}, and numbers of runs: finished (done or
--   failed), failures (among these), stopped, elsewhere (trained by other processes)
function M.create(runs, settings)
  return setmetatable({
    runs = runs, options = settings, running = {}, n_running = 0, finished = 0, failures = 0, stopped = 0, elsewhere = 0,
  }, Runner)
end

--- A run's directory.
-- @param run the run
-- @return its path
function Runner:dir(run)
  return self.options.out .. "/" .. run.name
end

-- Leaves a run to another process, which trains it; how it ends is not known here.
local function leave(self, run, now)
  self.elsewhere = self.elsewhere + 1
  self.options.on_event("elsewhere", run, now)
end

-- Starts a run, unless it is finished, has failed, or is trained by another process.
local function start(self, run)
  local dir = self:dir(run)
  local now = state.of(run, dir)
  if now.state == "failed" and self.options.retry then
    state.retry(dir)
    now.state = now.epochs and "begun" or "new"
  end
  if now.state == "running" then return leave(self, run, now) end
  if now.state ~= "new" and now.state ~= "begun" then
    self.finished = self.finished + 1
    if now.state == "failed" then self.failures = self.failures + 1 end
    self.options.on_event(now.state, run, now)
    return
  end
  folder.make(dir)
  local words = { core.executable(), "train", options.path(run.settings.script), table.unpack(sweep.arguments(run.settings)) }
  for _, word in ipairs(options.words { out = dir, quiet = true, resume = now.state == "begun" }) do words[#words + 1] = word end
  self.options.on_event("begins", run, now)
  self.running[core.spawn(words, dir .. "/output.log")] = run
  self.n_running = self.n_running + 1
end

-- Exit statuses of a run that was told to stop: 130, or those of a process that the signal (HUP,
-- INT, TERM) ended before it could react.
local was_stopped = { [129] = true, [130] = true, [143] = true }

local function ended(self, pid, code)
  local run = self.running[pid]
  if not run then return end
  self.running[pid] = nil
  self.n_running = self.n_running - 1
  local dir = self:dir(run)
  local now = state.of(run, dir)
  if now.state == "done" then
    self.finished = self.finished + 1
    self.options.on_event("done", run, now)
  elseif now.state == "running" then -- another process began the run first
    leave(self, run, now)
  elseif was_stopped[code] or (self.stopping and code > 128) then
    self.stopped = self.stopped + 1
    self.options.on_event("stopped", run, now)
  else
    self.finished, self.failures = self.finished + 1, self.failures + 1
    now.message = state.fail(dir, code)
    self.options.on_event("failed", run, now)
  end
end

-- Interrupts the children, which then write their checkpoints.
local function stop(self)
  self.stopping = true
  for pid in pairs(self.running) do core.interrupt(pid) end
end

--- Runs what is not done. When interrupted, interrupts the children and waits for them.
-- @return true; false when interrupted
function Runner:run()
  core.catch_interrupt()
  local next_run = 1
  while true do
    if core.interrupted() and not self.stopping then stop(self) end
    if self.stopping then next_run = #self.runs + 1 end
    while self.n_running < self.options.jobs and next_run <= #self.runs do
      start(self, self.runs[next_run])
      next_run = next_run + 1
    end
    if self.n_running == 0 and next_run > #self.runs then break end
    local pid, code = core.wait_child(0.5)
    if pid then ended(self, pid, code) end
    self.options.on_wait(self)
  end
  core.catch_interrupt(false)
  return not self.stopping
end

return M
