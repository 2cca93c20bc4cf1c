--- Learning rate schedules. A schedule gives each epoch a learning rate, or, by_step and those with
-- a warm-up, each step. Epochs count from 1, steps from 0 over the whole run (method.md 5.3).
local interval = require "mptl.interval"
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

-- A schedule with the setting that all of them have.
local function create(name, settings)
  local warmup = settings.warmup
  if warmup ~= nil then interval.check(("schedule.%s: warmup"):format(name), warmup) end
  return setmetatable({ name = name, warmup = warmup }, Schedule)
end

--- Cosine annealing (Loshchilov and Hutter, "SGDR", 2017): lr/2 (1 + cos(pi k / T)) after k epochs.
-- @param settings {epochs = T, warmup = length}; epochs is the run's number of epochs by default.
--   warmup, of every schedule, is a number of steps or a text such as "5 epochs": step s of a
--   warm-up of w steps has (s + 1) / w of the learning rate that it would have without
-- @return the schedule
-- @usage mptl.schedule.cosine { warmup = "5 epochs" }
function M.cosine(settings)
  settings = settings or {}
  misuse.check_fields("schedule.cosine", settings, { "epochs", "warmup" })
  local self = create("cosine", settings)
  if settings.epochs ~= nil then self.epochs = check_positive("schedule.cosine: epochs", settings.epochs) end
  return self
end

local function check_milestones(milestones)
  if type(milestones) ~= "table" then
    misuse.raise("schedule.step: milestones = %s, must be a list of epochs", tostring(milestones))
  end
  local checked = {}
  for i, epoch in ipairs(milestones) do
    checked[i] = check_positive(("schedule.step: milestones[%d]"):format(i), epoch)
  end
  return checked
end

--- Decay: multiplies the learning rate by gamma after every so many epochs, or after each of the
-- milestones.
-- @param settings {every = epochs} or {milestones = {epochs, ...}}; gamma = 0.1; warmup as of
--   cosine
-- @return the schedule
-- @usage mptl.schedule.step { milestones = { 100, 150 }, gamma = 0.1 }
function M.step(settings)
  settings = settings or {}
  misuse.check_fields("schedule.step", settings, { "every", "gamma", "milestones", "warmup" })
  if (settings.every == nil) == (settings.milestones == nil) then
    misuse.raise("schedule.step: must have one of every and milestones")
  end
  local self = create("step", settings)
  self.gamma = check_positive("schedule.step: gamma", settings.gamma or 0.1)
  if settings.every then
    self.every = check_positive("schedule.step: every", settings.every)
  else
    self.milestones = check_milestones(settings.milestones)
  end
  return self
end

--- The same learning rate throughout.
-- @param settings {warmup as of cosine}
-- @return the schedule
function M.constant(settings)
  settings = settings or {}
  misuse.check_fields("schedule.constant", settings, { "warmup" })
  return create("constant", settings)
end

--- A learning rate for each step, by a function of the script.
-- @param f function (step, steps, cfg) that returns the learning rate of a step. step counts from 0
--   over the whole run (steps.jsonl counts from 1), steps is the number of all steps of the run,
--   cfg has the run's settings: cfg.lr is the optimizer's lr, steps // cfg.epochs the steps of an
--   epoch. The result must depend on nothing else, so that a resumed run continues bit for bit:
--   the function is called for some steps before the training, too, and a resumed run does not call
--   it for the steps that were made before. (The function of PyTorch's LambdaLR returns a factor f
--   of the learning rate; here it would return cfg.lr * f.)
-- @return the schedule
-- @usage
-- -- 500 steps of linear warm-up, then a cosine to 0
-- schedule = mptl.schedule.by_step(function(step, steps, cfg)
--   if step < 500 then return cfg.lr * (step + 1) / 500 end
--   return cfg.lr / 2 * (1 + math.cos(math.pi * (step - 500) / (steps - 500)))
-- end)
function M.by_step(f)
  if type(f) ~= "function" then
    misuse.raise("schedule.by_step: %s, must be a function(step, steps, cfg) that returns the learning rate",
      misuse.text(f))
  end
  return setmetatable({ name = "by_step", of = f }, Schedule)
end

local factor = {
  cosine = function(self, done, epochs)
    return 0.5 * (1 + math.cos(math.pi * done / (self.epochs or epochs)))
  end,
  constant = function() return 1 end,
  step = function(self, done)
    local decays = self.every and done // self.every or 0
    for _, epoch in ipairs(self.milestones or {}) do
      if done >= epoch then decays = decays + 1 end
    end
    return self.gamma ^ decays
  end,
}

--- The value if it is a schedule or a function(epoch, cfg) that returns the learning rate, else an
-- error.
-- @param value what a script gave
-- @return the schedule
function M.check(value)
  if getmetatable(value) == Schedule or type(value) == "function" then return value end
  misuse.raise("schedule: %s, must be made by mptl.schedule.by_step, constant, cosine or step, or be a function(epoch, cfg)",
    type(value))
end

--- Whether a schedule gives each step a learning rate of its own.
-- @param schedule a schedule or a function(epoch, cfg)
-- @return true or false; false: all steps of an epoch have the same
function M.is_by_step(schedule)
  return type(schedule) == "table" and (schedule.name == "by_step" or schedule.warmup ~= nil)
end

-- Calls a script's function; where names the step or epoch in messages.
local function call(f, where, ...)
  local ok, lr = xpcall(f, function(message)
    return ("schedule: the function failed for %s: %s"):format(where, misuse.text(message))
  end, ...)
  if not ok then error(lr, 0) end
  if type(lr) == "number" and lr >= 0 and lr < math.huge then return lr end
  error(("schedule: the function gave %s for %s, must be a finite number of at least 0"):format(misuse.text(lr), where), 0)
end

--- The learning rate of an epoch, or of a step in it.
-- @param schedule a schedule or a function(epoch, cfg)
-- @param epoch number of the epoch, from 1
-- @param cfg the run's settings: epochs, and lr of the optimizer
-- @param step number of the step, from 0; only where is_by_step
-- @param steps number of all steps of the run; only where is_by_step
-- @return lr
function M.lr(schedule, epoch, cfg, step, steps)
  if type(schedule) == "function" then return call(schedule, "epoch " .. epoch, epoch, cfg) end
  if schedule.name == "by_step" then
    return call(schedule.of, ("step %d (of 0 to %d)"):format(step, steps - 1), step, steps, cfg)
  end
  local lr = cfg.lr * factor[schedule.name](schedule, epoch - 1, cfg.epochs)
  if not schedule.warmup then return lr end
  return lr * math.min((step + 1) / interval.steps(schedule.warmup, steps // cfg.epochs), 1)
end

--- Raises the errors of a script's function before the training, as far as calls find them: for
-- every epoch, or for all steps of the first epoch and the first and last one of each other epoch.
-- @param schedule a schedule or a function(epoch, cfg)
-- @param cfg the run's settings
-- @param batches number of steps of an epoch
function M.check_run(schedule, cfg, batches)
  local steps = cfg.epochs * batches
  for epoch = 1, cfg.epochs do
    local first, last = (epoch - 1) * batches, epoch * batches - 1
    if not M.is_by_step(schedule) then last = first end
    for step = first, last, epoch > 1 and math.max(last - first, 1) or 1 do
      M.lr(schedule, epoch, cfg, step, steps)
    end
  end
end

return M
