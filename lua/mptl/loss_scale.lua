--- Loss scaling (Micikevicius and others, "Mixed precision training", 2018; method.md 5.4). The
-- loss is multiplied by a scale before backward, so that small gradients do not underflow; the
-- update divides the gradients by the scale.
local interval = require "mptl.interval"
local misuse = require "mptl.misuse"

local M = {}

local Settings, State = {}, {}
Settings.__index = Settings
State.__index = State

-- Bounds of a scale. Doubling a scale above 2^126 would leave binary32, in which the gradient of
-- the loss is multiplied. At 2^-24 the gradient of the loss (at most 1/batch) is among the smallest
-- numbers of 16-bit formats, and a smaller scale could only make zeros of it.
local least, most = 2.0 ^ -24, 2.0 ^ 126

local function check_scale(what, value)
  if type(value) ~= "number" or not (value >= least and value <= most) then
    misuse.raise("%s = %s, must be a number from 2^-24 to 2^126", what, tostring(value))
  end
  return value + 0.0
end

--- Dynamic scaling. A step with inf or NaN in a gradient is not applied and multiplies the scale by
-- backoff; growth_interval applied steps in a row multiply it by growth.
-- @param settings {init = 2^16, growth_interval = "1 epoch" (or "0.5 epoch", or a number of steps),
--   growth = 2, backoff = 0.5, min = 2^-24}
-- @return the checked settings
function M.dynamic(settings)
  settings = settings or {}
  misuse.check_fields("loss_scale.dynamic", settings, { "backoff", "growth", "growth_interval", "init", "min" })
  local self = setmetatable({
    name = "dynamic",
    init = check_scale("loss_scale.dynamic: init", settings.init or 2 ^ 16),
    growth_interval = interval.check("loss_scale.dynamic: growth_interval", settings.growth_interval or "1 epoch"),
    growth = settings.growth or 2,
    backoff = settings.backoff or 0.5,
    min = check_scale("loss_scale.dynamic: min", settings.min or least),
  }, Settings)
  if type(self.growth) ~= "number" or not (self.growth >= 1 and self.growth < math.huge) then
    misuse.raise("loss_scale.dynamic: growth = %s, must be a number of at least 1", tostring(self.growth))
  end
  if type(self.backoff) ~= "number" or not (self.backoff > 0 and self.backoff < 1) then
    misuse.raise("loss_scale.dynamic: backoff = %s, must be a number between 0 and 1", tostring(self.backoff))
  end
  return self
end

--- A constant scale. Steps with inf or NaN in a gradient are not applied.
-- @param scale the factor; powers of two do not change the digits of gradients
-- @return the checked settings
function M.static(scale)
  return setmetatable({ name = "static", init = check_scale("loss_scale.static", scale) }, Settings)
end

--- No scaling: the scale is 1 and every step is applied.
-- @return the settings
function M.none()
  return setmetatable({ name = "none", init = 1.0 }, Settings)
end

--- The value if a function of this module made it, else an error.
-- @param value what a script gave
-- @return the settings
function M.check(value)
  if getmetatable(value) == Settings then return value end
  misuse.raise("loss_scale: %s, must be made by mptl.loss_scale.dynamic, static or none", type(value))
end

--- The state of a run's loss scale.
-- @param settings the checked settings
-- @param steps_per_epoch number of steps of an epoch, for growth_interval
-- @return the state, with the fields scale, skip_nonfinite (whether steps with inf or NaN in a
--   gradient are not applied) and good (number of steps applied since the scale last changed)
function M.start(settings, steps_per_epoch)
  local self = setmetatable({ settings = settings, scale = settings.init, good = 0 }, State)
  self.skip_nonfinite = settings.name ~= "none"
  if settings.name == "dynamic" then self.interval = interval.steps(settings.growth_interval, steps_per_epoch) end
  return self
end

--- Changes the scale after a step. Call it after each step.
-- @param applied whether the step was applied: its gradients were finite
function State:update(applied)
  local s = self.settings
  if s.name ~= "dynamic" then return end
  if not applied then
    self.scale, self.good = math.max(self.scale * s.backoff, s.min), 0
    return
  end
  self.good = self.good + 1
  if self.good >= self.interval then
    self.scale, self.good = math.min(self.scale * s.growth, most), 0
  end
end

--- Whether the scale cannot fall: it is constant, or at its minimum.
-- @return true or false
function State:at_minimum()
  return self.settings.name ~= "dynamic" or self.scale <= self.settings.min
end

--- What a checkpoint keeps of the state.
-- @return {scale, good}
function State:save()
  return { scale = self.scale, good = self.good }
end

--- Continues from a saved state.
-- @param saved the result of save
function State:restore(saved)
  self.scale, self.good = saved.scale, saved.good
end

return M
