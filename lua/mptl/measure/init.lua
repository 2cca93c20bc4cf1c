--- Measures of training: what --tensors-every, --exponents and --gradient-error record
-- (docs/measures.md). They do not change the training.
local gradient_error = require "mptl.measure.gradient_error"
local json = require "mptl.json"
local jsonl = require "mptl.jsonl"
local misuse = require "mptl.misuse"
local tensors = require "mptl.measure.tensors"

local M = {
  tensors = tensors.describe, -- for scripts and the interactive Lua
}

--- The gradient error for hooks.
-- @param trainer a trainer with a training program
-- @return function (batches): computes it on that many batches (1) for the trainer's current model
--   and formats; returns the result of GradientError:compute
function M.gradient_error(trainer)
  local by_batches = {}
  return function(batches)
    batches = batches or 1
    local most = trainer.data.train:count() // trainer.cfg.batch
    if math.type(batches) ~= "integer" or batches < 1 or batches > most then
      misuse.raise("gradient_error: %s batches, accepted are 1 to the %d whole ones of the training set", tostring(batches), most)
    end
    by_batches[batches] = by_batches[batches] or gradient_error.create(trainer, batches)
    return by_batches[batches]:compute(true)
  end
end

local Measures = {}
Measures.__index = Measures

--- Raises an error when options contradict each other.
-- @param cfg the configuration: tensors_every, exponents, gradient_error, batch
-- @param count number of training images
function M.check(cfg, count)
  if cfg.exponents and not cfg.tensors_every then
    misuse.usage("--exponents: needs --tensors-every N, the steps for which they are counted")
  end
  if cfg.gradient_error and cfg.gradient_error * cfg.batch > count then
    misuse.usage("--gradient-error %d: there are %d whole batches of %d images in the training set, accepted are 1 to that",
      cfg.gradient_error, count // cfg.batch, cfg.batch)
  end
end

--- The measures of a run. Cuts their files back to the trainer's epoch and step.
-- @param cfg the configuration
-- @param run the run directory (mptl.run)
-- @param trainer the trainer, before its first step
-- @return the measures; nil when none is switched on
function M.open(cfg, run, trainer)
  run:keep("tensors.jsonl", "step", trainer.step, run.before.tensors_every)
  run:keep("gradient_error.jsonl", "epoch", trainer.epoch, run.before.gradient_error and 1)
  if not cfg.tensors_every and not cfg.gradient_error then return nil end
  local self = setmetatable({
    every = cfg.tensors_every, exponents = cfg.exponents, run = run, trainer = trainer, files = {},
  }, Measures)
  local function open(name)
    local file = jsonl.open(("%s/%s"):format(run.dir, name))
    table.insert(self.files, file)
    return file
  end
  if self.every then self.tensors_file = open "tensors.jsonl" end
  if cfg.gradient_error then
    self.errors_file = open "gradient_error.jsonl"
    self.gradient_error = gradient_error.create(trainer, cfg.gradient_error)
  end
  return self
end

local function is_recorded(self)
  return self.every and (self.trainer.step + 1) % self.every == 0 -- steps count from 1 in the files
end

--- Call it before a step.
-- @param program the program that will make the step
function Measures:before_step(program)
  if self.exponents and is_recorded(self) then program:count_exponents(true) end
end

--- Call it after a step, before the assignment changes and the trainer counts the step.
-- @param program the program that made the step
function Measures:after_step(program)
  if not is_recorded(self) then return end
  local t = self.trainer
  local list = tensors.describe(t.plan.graph, program)
  if self.exponents then program:count_exponents(false) end
  local lines = {}
  for i, tensor in ipairs(list) do lines[i] = tensors.line(t.step + 1, t.epoch + 1, tensor) end
  self.tensors_file:append(table.concat(lines, "\n"))
  self.run.events:add(t.step + 1, tensors.scalars(list))
end

--- Call it after an epoch's last step, before the trainer counts the epoch.
-- @return false when interrupted, without writing anything; else true
function Measures:after_epoch()
  if not self.gradient_error then return true end
  local epoch, result = self.trainer.epoch + 1, self.gradient_error:compute()
  if not result then return false end
  if result.skipped > 0 then
    self.run:log("epoch %d: gradient error: %d of %d batches left out, their gradients were not finite (loss scale %g)", epoch,
      result.skipped, result.batches, result.loss_scale)
  end
  self.errors_file:append(json.encode(gradient_error.line(epoch, result)))
  self.run.events:add(epoch, {
    { "gradient_error/relative", result.gradient.relative }, { "update_error/relative", result.update.relative },
  })
  return true
end

--- Waits until everything is on the disk, before a checkpoint that relies on it is written.
function Measures:sync()
  for _, file in ipairs(self.files) do file:sync() end
end

--- Closes the files.
function Measures:close()
  for _, file in ipairs(self.files) do file:close() end
end

return M
