--- Measures of training: what --tensors-every, --exponents and --gradient-error switch on (docs/measures.md). They change
-- nothing of the training, and where none is on there is no object of them.
local gradient_error = require "mptl.measure.gradient_error"
local json = require "mptl.json"
local jsonl = require "mptl.jsonl"
local misuse = require "mptl.misuse"
local tensors = require "mptl.measure.tensors"

local M = {
  tensors = tensors.describe, -- for scripts and the prompt: what the last step of a program did to each tensor
}

--- The gradient-error measure for hooks.
-- @param trainer with a training program
-- @return function (batches): measures on that many batches (1) in the trainer's state and formats of the moment, returns what
--   GradientError:measure does
function M.gradient_error(trainer)
  local by_batches = {}
  return function(batches)
    batches = batches or 1
    local most = trainer.data.train:count() // trainer.cfg.batch
    if math.type(batches) ~= "integer" or batches < 1 or batches > most then
      misuse.raise("gradient_error: %s batches, accepted are 1 to the %d whole ones of the training set", tostring(batches), most)
    end
    by_batches[batches] = by_batches[batches] or gradient_error.create(trainer, batches)
    return by_batches[batches]:measure(true)
  end
end

local Measures = {}
Measures.__index = Measures

--- Raises for options that do not go together.
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

--- The measures of a run. Their files are cut back to the trainer's epoch and step.
-- @param cfg the configuration
-- @param run the run directory (mptl.run)
-- @param trainer about to begin, or to go on
-- @return the measures; nil when none is on
function M.open(cfg, run, trainer)
  run:keep("tensors.jsonl", "step", trainer.step, run.before.tensors_every)
  run:keep("gradient_error.jsonl", "epoch", trainer.epoch, run.before.gradient_error and 1)
  if not cfg.tensors_every and not cfg.gradient_error then return nil end
  local self = setmetatable({ every = cfg.tensors_every, exponents = cfg.exponents, run = run, trainer = trainer }, Measures)
  if self.every then self.tensors_file = jsonl.open(run.dir .. "/tensors.jsonl") end
  if cfg.gradient_error then
    self.errors_file = jsonl.open(run.dir .. "/gradient_error.jsonl")
    self.gradient_error = gradient_error.create(trainer, cfg.gradient_error)
  end
  return self
end

local function is_measured(self)
  return self.every and (self.trainer.step + 1) % self.every == 0 -- steps count from 1 in the files
end

--- To be called before a step.
-- @param program that makes it
function Measures:before_step(program)
  if self.exponents and is_measured(self) then program:count_exponents(true) end
end

--- To be called after a step, before the assignment changes and the trainer counts the step.
-- @param program that made it
function Measures:after_step(program)
  if not is_measured(self) then return end
  local t = self.trainer
  local list = tensors.describe(t.plan.graph, program)
  if self.exponents then program:count_exponents(false) end
  local lines = {}
  for i, record in ipairs(list) do lines[i] = tensors.line(t.step + 1, t.epoch + 1, record) end
  self.tensors_file:append(table.concat(lines, "\n"))
  self.run.events:add(t.step + 1, tensors.scalars(list))
end

--- To be called after an epoch's last step, before the trainer counts the epoch.
-- @return false when interrupted; nothing is written then
function Measures:after_epoch()
  if not self.gradient_error then return true end
  local epoch, result = self.trainer.epoch + 1, self.gradient_error:measure()
  if not result then return false end
  if result.skipped > 0 then
    self.run:log("epoch %d: gradient error: %d of %d batches left out, their gradients were not finite (loss scale %g)", epoch,
      result.skipped, result.batches, result.loss_scale)
  end
  self.errors_file:append(json.encode(gradient_error.record(epoch, result)))
  self.run.events:add(epoch, {
    { "gradient_error/relative", result.gradient.relative }, { "update_error/relative", result.update.relative },
  })
  return true
end

--- Brings all that was written to the disk, for a checkpoint that counts on it.
function Measures:sync()
  if self.tensors_file then self.tensors_file:sync() end
  if self.errors_file then self.errors_file:sync() end
end

--- Closes the files.
function Measures:close()
  if self.tensors_file then self.tensors_file:close() end
  if self.errors_file then self.errors_file:close() end
end

return M
