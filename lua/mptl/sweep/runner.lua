--- Runs a sweep's training runs as child processes, several at once.
local core = require "mptl.core"
local folder = require "mptl.folder"
local state = require "mptl.sweep.state"
local sweep = require "mptl.sweep"

local M = {}

local Runner = {}
Runner.__index = Runner

--- A runner.
-- @param runs list of runs of a loaded sweep
-- @param options {out = directory of the run directories, jobs = how many at once, retry = whether failed runs are tried again,
-- on_event = function (event, run, its state) with event "begins", "done", "failed", "stopped" or "elsewhere",
-- on_wait = function (runner), about twice a second}
-- @return the runner; its fields running = {pid = run}, and numbers of runs: finished (dealt with), failures among these, stopped
function M.create(runs, options)
  return setmetatable({
    runs = runs, options = options, running = {}, n_running = 0, finished = 0, failures = 0, stopped = 0,
  }, Runner)
end

--- A run's directory.
-- @param run the run
-- @return its path
function Runner:dir(run)
  return self.options.out .. "/" .. run.name
end

-- Starts a run unless there is nothing to do for it.
local function start(self, run)
  local dir = self:dir(run)
  local now = state.of(run, dir)
  if now.state == "failed" and self.options.retry then
    state.retry(dir)
    now.state = now.epochs and "begun" or "new"
  end
  if now.state ~= "new" and now.state ~= "begun" then
    self.finished = self.finished + 1
    if now.state == "failed" then self.failures = self.failures + 1 end
    self.options.on_event(now.state == "running" and "elsewhere" or now.state, run, now)
    return
  end
  folder.make(dir)
  local words = { core.executable(), "train", run.settings.script, table.unpack(sweep.arguments(run.settings)) }
  for _, word in ipairs { "--out", dir, "--quiet" } do words[#words + 1] = word end
  if now.state == "begun" then words[#words + 1] = "--resume" end
  self.options.on_event("begins", run, now)
  self.running[core.spawn(words, dir .. "/output.log")] = run
  self.n_running = self.n_running + 1
end

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
  elseif now.state == "running" then -- another process was quicker
    self.finished = self.finished + 1
    self.options.on_event("elsewhere", run, now)
  elseif code == 130 or (self.stopping and code > 128) then
    self.stopped = self.stopped + 1
    self.options.on_event("stopped", run, now)
  else
    self.finished, self.failures = self.finished + 1, self.failures + 1
    now.message = state.fail(dir, code)
    self.options.on_event("failed", run, now)
  end
end

--- Runs what is not done. When interrupted, interrupts the children, which write their checkpoints, and waits for them.
-- @return true; false when interrupted
function Runner:run()
  core.catch_interrupt()
  local next_run = 1
  while true do
    if core.interrupted() and not self.stopping then
      self.stopping = true
      for pid in pairs(self.running) do core.interrupt(pid) end
    end
    while not self.stopping and self.n_running < self.options.jobs and next_run <= #self.runs do
      start(self, self.runs[next_run])
      next_run = next_run + 1
    end
    if self.n_running == 0 and (self.stopping or next_run > #self.runs) then break end
    local pid, code = core.wait_child(0.5)
    if pid then ended(self, pid, code) end
    self.options.on_wait(self)
  end
  core.catch_interrupt(false)
  return not self.stopping
end

return M
