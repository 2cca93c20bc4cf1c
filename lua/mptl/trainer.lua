--- The state of a training: model, assignment, programs, loaders, loss scale, and what a checkpoint keeps of them. It prints
-- nothing and writes nothing but the checkpoints it is told to.
--
-- Epochs count from 1. `epoch` is the number of finished ones, `batch` the batches done of the one under way, `step` all steps
-- made. One step's random bits come from (seed, step), one epoch's data order from (seed, epoch): so a training continued from a
-- checkpoint, with as many threads, is bit for bit the one that was not interrupted.
local adapt = require "mptl.precision.adapt"
local checkpoint = require "mptl.checkpoint"
local configuration = require "mptl.configuration"
local core = require "mptl.core"
local data = require "mptl.data"
local feasible = require "mptl.feasible"
local loss_scale = require "mptl.loss_scale"
local measure = require "mptl.measure"
local memory = require "mptl.memory"
local optim = require "mptl.optim"
local precision = require "mptl.precision"
local resume = require "mptl.resume"
local schedule = require "mptl.schedule"
local script = require "mptl.script"
local tensors = require "mptl.measure.tensors"
local threads = require "mptl.threads"

local M = {}

local Trainer = {}
Trainer.__index = Trainer

--- Whether every tensor of a plan is in binary32.
-- @param plan as script.plan returned it
-- @return true or false
function M.is_fp32(plan)
  for _, t in ipairs(plan.graph:tensors()) do
    if t.format ~= "fp32" then return false end
  end
  return true
end

-- Options of a program; those besides batch and train come from the configuration.
local function program_options(self, batch, train)
  return {
    batch = batch, train = train, rounding = self.cfg.rounding, seed = self.cfg.seed, compute = self.cfg.compute,
    storage = self.cfg.storage, optimizer = self.optimizer.name,
  }
end

-- A program over the trainer's model.
local function program(self, assignment, batch, train)
  local options = program_options(self, batch, train)
  options.workspace = self.workspace
  return core.program(self.model, assignment, options)
end

-- The batch of the tests.
local function test_batch(self)
  return math.min(self.cfg.batch, self.data.test:count())
end

--- Compiles a program over the trainer's model, which shares its workspace.
-- @param assignment the engine's assignment
-- @param batch images a step
-- @param train with backward?
-- @return the program
Trainer.compile = program

local function loader(self, split, options)
  local set = self.data[split]
  options.mean, options.std, options.seed = self.data.mean, self.data.std, self.cfg.seed
  options.batch, options.device = math.min(self.cfg.batch, set:count()), self.cfg.device
  if self.data.encoded then options.threads = math.min(core.threads(), 64) end
  return core.loader(set, options)
end

--- Model, plan, data and programs of a configuration.
-- @param cfg as script.configure returned it
-- @param purpose "train", or "eval" for what only evaluates
-- @return the trainer
function M.create(cfg, purpose)
  local train = purpose ~= "eval"
  local self = setmetatable({ cfg = cfg, optimizer = optim.check(cfg.optimizer), epoch = 0, batch = 0, step = 0 }, Trainer)
  schedule.check(cfg.schedule)
  loss_scale.check(cfg.loss_scale)
  threads.set(cfg.threads)
  self.graph = script.record(cfg)
  self.plan = script.plan(cfg, self.graph)
  self.data = data.open {
    dataset = cfg.dataset, dir = cfg.data, limit_train = not train and 1 or cfg.limit_train, limit_test = cfg.limit_test,
    image_size = cfg.input[2], on_bad_image = cfg.on_bad_image,
  }
  feasible.classes(cfg, self.data)
  if train then self.least_batch = feasible.batch(cfg, self.data.train:count(), self.graph) end
  self.fp32_plan = precision.plan(precision.fp32(), self.graph, cfg.batch)
  local programs = { { self.plan.assignment, program_options(self, test_batch(self), false) } }
  if not M.is_fp32(self.plan) then programs[2] = { self.fp32_plan.assignment, programs[1][2] } end
  if train then table.insert(programs, { self.plan.assignment, program_options(self, cfg.batch, true) }) end
  memory.check(train and "training" or "testing", cfg.device, programs)
  self.model = core.model(self.graph, {
    seed = cfg.seed, device = cfg.device, optimizer = self.optimizer.name,
    parameter_groups = self.optimizer:parameter_groups(self.graph),
  })
  self.workspace = core.workspace(cfg.device) -- the programs run one after the other
  self.promotions, self.changes, self.best = 0, 0, nil
  if train then
    local count = self.data.train:count()
    self.loader = loader(self, "train", { shuffle = true, augment = true })
    self.batches = self.loader:batches()
    self.program = program(self, self.plan.assignment, cfg.batch, true)
    self.other_programs = {}
    if count % cfg.batch > 0 then self:training_program(count % cfg.batch) end -- the last batch's
    self.scale = loss_scale.start(M.is_fp32(self.plan) and loss_scale.none() or cfg.loss_scale, self.batches)
    self.adapter = adapt.create(self.plan)
    self.gradient_error = measure.gradient_error(self)
    self:begin_epoch()
  end
  self.test_loader = loader(self, "test", {})
  if train then self:prepare_tests() end -- what cannot be tested is told now, not after the first epoch
  return self
end

--- The training program for a number of images, compiled when it is first asked for: of the last batch, or one with bad images
-- left out.
-- @param n images
-- @return the program
function Trainer:training_program(n)
  if n == self.cfg.batch then return self.program end
  local others = self.other_programs
  others[n] = others[n] or program(self, self.plan.assignment, n, true)
  return others[n]
end

-- The next batch of a loader: images in it (nil at the end), bad images left out.
local function next_batch(self, from)
  local ok, n, bad = pcall(from.next, from)
  if ok then return n, bad end
  error(self.data.encoded and self.cfg.on_bad_image ~= "skip" and n .. "; --on-bad-image skip leaves such images out" or n, 0)
end

--- How many bad images were left out, as text.
-- @param count of them, above 0
-- @param split "training" or "test"
-- @return "2 test images left out; the last: FILE: why"
function Trainer:left_out(count, split)
  local from = split == "test" and self.test_loader or self.loader
  return ("%d %s image%s left out; the last: %s"):format(count, split, count == 1 and "" or "s", from:skipped())
end

--- Starts the next epoch's sums.
function Trainer:begin_epoch()
  self.batch = 0
  self.sums = { loss = 0.0, correct = 0, count = 0, steps = 0, skipped = 0, nan_steps = 0, seconds = 0.0, bad_images = 0 }
end

--- The learning rate of a step of the epoch under way. Calls a script's schedule once for each
-- epoch or step.
-- @param step number of the step, from 0
-- @return lr
function Trainer:lr(step)
  local cfg = self.cfg
  local key = schedule.is_by_step(cfg.schedule) and step or self.epoch
  if self.lr_key ~= key then
    self.lr_value = schedule.lr(cfg.schedule, self.epoch + 1, cfg, step, cfg.epochs * self.batches)
    self.lr_key = key
  end
  return self.lr_value
end

--- Has the loader make the epoch's batches from the next one on.
function Trainer:start_batches()
  self.loader:start(self.epoch, self.batch)
end

--- Makes one training step.
-- @return {lr =, loss = mean, acc = percent, count =, applied =, loss_scale = the step's, changes = of formats
-- (precision.adapt)}; nil when the epoch has no more batches
function Trainer:train_step()
  local scale, sums = self.scale.scale, self.sums
  local n, bad
  repeat -- bad images may leave a batch that is too small for an operator
    n, bad = next_batch(self, self.loader)
    sums.bad_images = (sums.bad_images or 0) + bad
    local small = n and n < self.least_batch
    if small then sums.lonely_images = (sums.lonely_images or 0) + n end
  until not small
  if not n then return nil end
  local used, lr = self:training_program(n), self:lr(self.step)
  if self.measures then self.measures:before_step(used) end
  local update = self.optimizer:update(lr)
  update.step, update.loss_scale, update.skip_nonfinite = self.step, scale, self.scale.skip_nonfinite
  local result = used:step(self.loader, update)
  if self.measures then self.measures:after_step(used) end
  self.step, self.batch, self.last_used = self.step + 1, self.loader:position(), used
  self.scale:update(result.applied)
  sums.loss, sums.correct, sums.count = sums.loss + result.loss, sums.correct + result.correct, sums.count + result.count
  sums.steps = sums.steps and sums.steps + 1 -- a checkpoint of an older version has none
  if not result.applied then sums.skipped = sums.skipped + 1 end
  if result.loss ~= result.loss then sums.nan_steps = sums.nan_steps + 1 end
  sums.scale_min = math.min(sums.scale_min or scale, scale)
  sums.scale_max = math.max(sums.scale_max or scale, scale)
  local at = { step = self.step, epoch = self.epoch + 1, gradient_error = self.gradient_error }
  local promotions, changes = self.adapter:after_step(used, at)
  self.promotions = self.promotions + promotions
  if self.changes then self.changes = self.changes + #changes end
  return {
    lr = lr, loss = result.loss / n, acc = 100 * result.correct / n, count = n, applied = result.applied, loss_scale = scale,
    changes = changes,
  }
end

--- The tensors that overflowed most in the last step that this process made.
-- @return as measure.tensors.overflows; empty when there was no step
function Trainer:overflows()
  return self.last_used and tensors.overflows(self.plan.graph, self.last_used) or {}
end

--- Whether no step of the epoch under way was applied so far.
-- @return true or false
function Trainer:all_skipped()
  local sums = self.sums
  return sums.steps ~= nil and sums.steps > 0 and sums.skipped == sums.steps
end

--- Whether no parameter or buffer holds inf or NaN.
-- @return true or false
function Trainer:finite()
  for _, name in ipairs(self.model:names()) do
    if not self.model:tensor(name):finite() then return false end
  end
  return true
end

-- Loss and accuracy on the test set under an assignment; nil when interrupted.
local function test(self, used)
  local loss, correct, count, bad_images = 0.0, 0, 0, 0
  self.test_loader:start(0)
  while true do
    local n, bad = next_batch(self, self.test_loader)
    bad_images = bad_images + bad
    if not n then break end
    local result = used:forward(self.test_loader, self.step)
    loss, correct, count = loss + result.loss, correct + result.correct, count + result.count
    if core.interrupted() then return nil end
  end
  return { loss = loss / count, acc = 100 * correct / count, count = count, bad_images = bad_images }
end

--- Compiles the programs of the tests, as far as they are not yet: a plan may leave binary32 later.
function Trainer:prepare_tests()
  local batch = test_batch(self)
  self.test_program = self.test_program or program(self, self.plan.assignment, batch, false)
  if self.fp32_program or M.is_fp32(self.plan) then return end
  self.fp32_program = program(self, self.fp32_plan.assignment, batch, false)
end

--- Tests in the current assignment and in binary32.
-- @return {loss, acc, acc_fp32, count, bad_images = left out}; nil when interrupted
function Trainer:evaluate()
  self:prepare_tests()
  local now = test(self, self.test_program)
  local fp32 = now and self.fp32_program and test(self, self.fp32_program) or now
  if not now or not fp32 then return nil end
  return { loss = now.loss, acc = now.acc, acc_fp32 = fp32.acc, count = now.count, bad_images = now.bad_images }
end

--- Closes the epoch under way.
-- @param tested what evaluate returned
-- @return the epoch's metrics, without seconds; lr is the last step's. And whether test_acc is the best so far
function Trainer:end_epoch(tested)
  local sums, shares = self.sums, self.plan.graph:measure()
  local lr = self:lr(self.step - 1)
  self.epoch = self.epoch + 1
  local _, peak = core.memory()
  local metrics = {
    epoch = self.epoch, lr = lr, train_loss = sums.loss / sums.count, train_acc = 100 * sums.correct / sums.count,
    test_loss = tested.loss, test_acc = tested.acc, test_acc_fp32 = tested.acc_fp32,
    loss_scale_log2_min = math.log(sums.scale_min, 2), loss_scale_log2_max = math.log(sums.scale_max, 2),
    skipped_steps = sums.skipped, promotions = self.promotions, ratio_lo = shares.ratio_lo, bits_ratio = shares.bits_ratio,
    peak_bytes = peak, images_per_s = sums.count / math.max(sums.seconds, 1e-9),
  }
  local better = self.best == nil or tested.acc > self.best
  if better then self.best = tested.acc end
  self:begin_epoch()
  return metrics, better
end

--- Writes a checkpoint.
-- @param path the file
function Trainer:save(path)
  checkpoint.save(path, self.graph, self.model, {
    epoch = self.epoch, batch = self.batch, step = self.step, updates = self.model:updates(), sums = self.sums,
    loss_scale = self.scale:save(), formats = resume.formats(self.plan), promotions = self.promotions, changes = self.changes,
    best = self.best, settings = configuration.essential(configuration.settings(self.cfg)),
  })
end

--- Continues from a checkpoint that save wrote.
-- @param path the file
function Trainer:restore(path)
  local state, file = checkpoint.state(path)
  if not state then error(("%s: holds no training state; it can be evaluated, not resumed"):format(path), 0) end
  resume.check_evaluated(path, state)
  resume.check_settings(path, configuration.settings(self.cfg), state.settings or {})
  resume.check_continued(path, state, self.batches)
  checkpoint.load(file, self.graph, self.model, true)
  resume.set_formats(path, self.plan, state.formats)
  self.adapter = adapt.create(self.plan)
  self.epoch, self.batch, self.step, self.sums = state.epoch, state.batch, state.step, state.sums
  self.promotions, self.best = state.promotions, state.best
  self.changes = state.changes -- nil in checkpoints of versions that did not count them
  self.model:set_updates(state.updates)
  self.scale:restore(state.loss_scale)
end

--- Reads parameters, and the assignment if the file has one, for an evaluation.
-- @param state the state of a checkpoint, checked by resume.check_evaluated; nil for parameters saved by PyTorch
-- @param file the opened file; both as checkpoint.state returned them
function Trainer:load(state, file)
  checkpoint.load(file, self.graph, self.model, false)
  if not state then return end
  resume.set_formats(file.path, self.plan, state.formats)
  self.epoch, self.step = state.epoch, state.step
end

return M
