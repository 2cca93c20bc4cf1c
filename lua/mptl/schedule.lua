--- Learning rate schedules, by epoch. Epochs count from 1.
local misuse = require "mptl.misuse"

local M = {}

local Schedule = {}
Schedule.__index = Schedule

local function check_positive(what, value)
  if type(value) ~= "number" or not (value > 0 and value < math.huge) then
    misuse.raise("%s = %s, must be a number above 0", what, tostring(value))
  end
  return value
end

--- Cosine annealing (Loshchilov and Hutter 2017): lr/2 (1 + cos(pi e / T)) in the epoch after e others.
-- @param settings {epochs = T}; the default is the run's number of epochs
-- @return the schedule
function M.cosine(settings)
  settings = settings or {}
  misuse.check_fields("schedule.cosine", settings, { "epochs" })
  if settings.epochs ~= nil then check_positive("schedule.cosine: epochs", settings.epochs) end
  return setmetatable({ name = "cosine", epochs = settings.epochs }, Schedule)
end

--- Multiplies the learning rate by gamma after every so many epochs, or after each of the milestones.
-- @param settings {every = epochs} or {milestones = {epochs, ...}}; gamma = 0.1
-- @return the schedule
-- @usage mptl.schedule.step{ milestones = { 100, 150 }, gamma = 0.1 }
function M.step(settings)
  settings = settings or {}
  misuse.check_fields("schedule.step", settings, { "every", "gamma", "milestones" })
  if (settings.every == nil) == (settings.milestones == nil) then
    misuse.raise("schedule.step: must have one of every and milestones")
  end
  local self = setmetatable({ name = "step", gamma = check_positive("schedule.step: gamma", settings.gamma or 0.1) }, Schedule)
  if settings.every then
    self.every = check_positive("schedule.step: every", settings.every)
  else
    if type(settings.milestones) ~= "table" then
      misuse.raise("schedule.step: milestones = %s, must be a list of epochs", tostring(settings.milestones))
    end
    self.milestones = {}
    for i, epoch in ipairs(settings.milestones) do
      self.milestones[i] = check_positive(("schedule.step: milestones[%d]"):format(i), epoch)
    end
  end
  return self
end

--- The same learning rate throughout.
-- @return the schedule
function M.constant()
  return setmetatable({ name = "constant" }, Schedule)
end

local factor = {
  cosine = function(self, done, epochs) return 0.5 * (1 + math.cos(math.pi * done / (self.epochs or epochs))) end,
  constant = function() return 1 end,
  step = function(self, done)
    local times = 0
    if self.every then times = done // self.every end
    for _, epoch in ipairs(self.milestones or {}) do
      if done >= epoch then times = times + 1 end
    end
    return self.gamma ^ times
  end,
}

--- The value if it is a schedule or a function(epoch, cfg) -> lr, else an error.
-- @param value what a script gave
-- @return the schedule
function M.check(value)
  if getmetatable(value) == Schedule or type(value) == "function" then return value end
  misuse.raise("schedule: %s, must be made by mptl.schedule.cosine, step or constant, or be a function(epoch, cfg)", type(value))
end

--- The learning rate of an epoch.
-- @param schedule a schedule or a function(epoch, cfg) -> lr
-- @param epoch from 1
-- @param cfg the run's settings: epochs, and the optimizer's lr
-- @return lr
function M.lr(schedule, epoch, cfg)
  if type(schedule) == "function" then
    local lr = schedule(epoch, cfg)
    if type(lr) ~= "number" or not (lr >= 0 and lr < math.huge) then
      error(("schedule: the function gave %s for epoch %d, must be a number of at least 0"):format(tostring(lr), epoch), 0)
    end
    return lr
  end
  return cfg.lr * factor[schedule.name](schedule, epoch - 1, cfg.epochs)
end

return M
