--- The trainer: the state of a training, that is model, assignment, programs, loaders and loss
-- scale, and their checkpoints. It prints nothing.
--
-- Epochs count from 1. The field epoch is the number of finished epochs, batches_done the number of
-- batches done in the current epoch, step the number of all steps made. The random bits of a step
-- come from (seed, step), the order of an epoch's data from (seed, epoch). So a training that
-- continues from a checkpoint, with the same number of threads, is bit for bit the uninterrupted
-- one.
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
-- @param plan the result of script.plan
-- @return true or false
function M.is_fp32(plan)
  for _, t in ipairs(plan.graph:tensors()) do
    if t.format ~= "fp32" then return false end
  end
  return true
end

local function program_options(self, batch, train)
  return {
    batch = batch, train = train, rounding = self.cfg.rounding, seed = self.cfg.seed, compute = self.cfg.compute,
    storage = self.cfg.storage, optimizer = self.optimizer.name,
  }
end

--- Compiles a program for the trainer's model. Programs share the trainer's workspace.
-- @param assignment the engine's assignment
-- @param batch number of images of a step
-- @param train whether the program trains; else it has no backward
-- @return the program
function Trainer:compile(assignment, batch, train)
  local options = program_options(self, batch, train)
  options.workspace = self.workspace
  return core.program(self.model, assignment, options)
end

-- The batch size of tests.
local function test_batch(self)
  return math.min(self.cfg.batch, self.data.test:count())
end

local function create_loader(self, split, options)
  local set = self.data[split]
  options.mean, options.std, options.seed = self.data.mean, self.data.std, self.cfg.seed
  options.batch, options.device = math.min(self.cfg.batch, set:count()), self.cfg.device
  if self.data.encoded then options.threads = math.min(core.threads(), 64) end
  return core.loader(set, options)
end

-- Raises an error when the device lacks the memory for the programs.
local function check_memory(self, train)
  local test_options = program_options(self, test_batch(self), false)
  local programs = { { self.plan.assignment, test_options } }
  if not M.is_fp32(self.plan) then programs[2] = { self.fp32_plan.assignment, test_options } end
  if train then
    table.insert(programs, { self.plan.assignment, program_options(self, self.cfg.batch, true) })
  end
  memory.check(train and "training" or "testing", self.cfg.device, programs)
end

-- Makes what only a training needs.
local function prepare_training(self)
  local cfg, count = self.cfg, self.data.train:count()
  self.promotions, self.changes, self.best = 0, 0, nil
  self.loader = create_loader(self, "train", { shuffle = true, augment = true })
  self.batches = self.loader:batches()
  self.program = self:compile(self.plan.assignment, cfg.batch, true)
  self.other_programs = {}
  if count % cfg.batch > 0 then self:training_program(count % cfg.batch) end -- of the last batch
  local settings = M.is_fp32(self.plan) and loss_scale.none() or cfg.loss_scale
  self.scale = loss_scale.start(settings, self.batches)
  self.adapter = adapt.create(self.plan)
  self.gradient_error = measure.gradient_error(self)
  self:begin_epoch()
end

--- Makes the model, plan, data and programs of a configuration.
-- @param cfg the configuration
-- @param purpose "train", or "eval" for a trainer that only evaluates
-- @return the trainer
function M.create(cfg, purpose)
  local train = purpose ~= "eval"
  local self = setmetatable({ cfg = cfg, epoch = 0, batches_done = 0, step = 0 }, Trainer)
  self.optimizer = optim.check(cfg.optimizer)
  schedule.check(cfg.schedule)
  loss_scale.check(cfg.loss_scale)
  threads.set(cfg.threads)
  self.graph = script.record(cfg)
  self.plan = script.plan(cfg, self.graph)
  self.data = data.open {
    dataset = cfg.dataset, dir = cfg.data, limit_train = not train and 1 or cfg.limit_train,
    limit_test = cfg.limit_test, image_size = cfg.input[2], on_bad_image = cfg.on_bad_image,
  }
  feasible.classes(cfg, self.data)
  if train then self.least_batch = feasible.batch(cfg, self.data.train:count(), self.graph) end
  self.fp32_plan = precision.plan(precision.fp32(), self.graph, cfg.batch)
  check_memory(self, train)
  self.model = core.model(self.graph, {
    seed = cfg.seed, device = cfg.device, optimizer = self.optimizer.name,
    parameter_groups = self.optimizer:parameter_groups(self.graph),
  })
  self.workspace = core.workspace(cfg.device) -- can be shared: the programs run one after the other
  if train then prepare_training(self) end
  self.test_loader = create_loader(self, "test", {})
  if train then self:prepare_tests() end -- so that what cannot be tested fails before the first epoch
  return self
end
--- The training program for a number of images. Compiles it when it is needed for the first time:
-- for the last batch, or for a batch without its bad images.
-- @param n number of images
-- @return the program
function Trainer:training_program(n)
  if n == self.cfg.batch then return self.program end
  local others = self.other_programs
  others[n] = others[n] or self:compile(self.plan.assignment, n, true)
  return others[n]
end

-- Takes the next batch of a loader. Returns the number of its images, nil at the end of the epoch;
-- and the number of bad images, which are left out.
local function next_batch(self, loader)
  local ok, n, bad = pcall(loader.next, loader)
  if ok then return n, bad end
  local hint = self.data.encoded and self.cfg.on_bad_image ~= "skip"
  error(n .. (hint and "; --on-bad-image skip leaves such images out" or ""), 0)
end

--- The bad images that were left out, as text.
-- @param count number of them, above 0
-- @param split "training" or "test"
-- @return "2 test images left out; the last: FILE: why"
function Trainer:left_out(count, split)
  local loader = split == "test" and self.test_loader or self.loader
  return ("%d %s image%s left out; the last: %s"):format(count, split, count == 1 and "" or "s",
    loader:skipped())
end

--- Starts the sums of the next epoch.
function Trainer:begin_epoch()
  self.batches_done = 0
  self.sums = {
    loss = 0.0, correct = 0, count = 0, steps = 0, skipped = 0, nan_steps = 0, seconds = 0.0, bad_images = 0,
  }
end

--- The learning rate of a step of the current epoch. Calls a script's schedule once for each epoch
-- or step.
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

--- Starts the loader with the next batch of the current epoch.
function Trainer:start_batches()
  self.loader:start(self.epoch, self.batches_done)
end

-- Takes the next training batch that is large enough for all operators: bad images, which are left
-- out, may make a batch too small. Returns the number of its images; nil at the end of the epoch.
local function next_training_batch(self)
  local sums = self.sums
  while true do
    local n, bad = next_batch(self, self.loader)
    sums.bad_images = (sums.bad_images or 0) + bad
    if not n or n >= self.least_batch then return n end
    sums.lonely_images = (sums.lonely_images or 0) + n
  end
end

-- Adds a step's result to the sums of the epoch. scale is the loss scale of the step.
local function add_to_sums(sums, result, scale)
  sums.loss, sums.correct = sums.loss + result.loss, sums.correct + result.correct
  sums.count = sums.count + result.count
  sums.steps = sums.steps and sums.steps + 1 -- checkpoints of older versions have no steps
  if not result.applied then sums.skipped = sums.skipped + 1 end
  if result.loss ~= result.loss then sums.nan_steps = sums.nan_steps + 1 end
  sums.scale_min = math.min(sums.scale_min or scale, scale)
  sums.scale_max = math.max(sums.scale_max or scale, scale)
end

-- Forward, backward and update of the loader's batch. Returns the program's result.
local function make_step(self, program, lr)
  if self.measures then self.measures:before_step(program) end
  local update = self.optimizer:update(lr)
  update.step, update.loss_scale = self.step, self.scale.scale
  update.skip_nonfinite = self.scale.skip_nonfinite
  local result = program:step(self.loader, update)
  if self.measures then self.measures:after_step(program) end
  self.step, self.batches_done, self.last_used = self.step + 1, self.loader:position(), program
  return result
end

-- Promotions and the policy's hook after a step. Returns the changes of formats.
local function adapt_formats(self, program)
  local at = { step = self.step, epoch = self.epoch + 1, gradient_error = self.gradient_error }
  local promotions, changes = self.adapter:after_step(program, at)
  self.promotions = self.promotions + promotions
  if self.changes then self.changes = self.changes + #changes end
  return changes
end

--- Makes one training step.
-- @return {lr =, loss = mean, acc = percent, count = images, applied =, loss_scale = of the step,
--   changes = list of changes of formats (precision.adapt)}; nil at the end of the epoch
function Trainer:train_step()
  local n = next_training_batch(self)
  if not n then return nil end
  local program, lr, scale = self:training_program(n), self:lr(self.step), self.scale.scale
  local result = make_step(self, program, lr)
  self.scale:update(result.applied)
  add_to_sums(self.sums, result, scale)
  return {
    lr = lr, loss = result.loss / n, acc = 100 * result.correct / n, count = n, applied = result.applied,
    loss_scale = scale, changes = adapt_formats(self, program),
  }
end

--- The tensors that overflowed most in the last step of this process.
-- @return as measure.tensors.overflows; empty when there was no step
function Trainer:overflows()
  return self.last_used and tensors.overflows(self.plan.graph, self.last_used) or {}
end

--- Whether the current epoch has steps and all of them were skipped.
-- @return true or false
function Trainer:all_skipped()
  local sums = self.sums
  return sums.steps ~= nil and sums.steps > 0 and sums.skipped == sums.steps
end

--- Whether all parameters and buffers are finite.
-- @return true or false
function Trainer:finite()
  for _, name in ipairs(self.model:names()) do
    if not self.model:tensor(name):finite() then return false end
  end
  return true
end

-- Tests with a program. Returns nil when interrupted.
local function test(self, program)
  local loss, correct, count, bad_images = 0.0, 0, 0, 0
  self.test_loader:start(0)
  while true do
    local n, bad = next_batch(self, self.test_loader)
    bad_images = bad_images + bad
    if not n then break end
    local result = program:forward(self.test_loader, self.step)
    loss, correct, count = loss + result.loss, correct + result.correct, count + result.count
    if core.interrupted() then return nil end
  end
  return { loss = loss / count, acc = 100 * correct / count, count = count, bad_images = bad_images }
end

--- Compiles the missing programs for tests: a plan may leave binary32 during the training, and then
-- needs another one for the test in binary32.
function Trainer:prepare_tests()
  local batch = test_batch(self)
  self.test_program = self.test_program or self:compile(self.plan.assignment, batch, false)
  if self.fp32_program or M.is_fp32(self.plan) then return end
  self.fp32_program = self:compile(self.fp32_plan.assignment, batch, false)
end

--- Tests in the current assignment and in binary32.
-- @return {loss, acc, acc_fp32, count, bad_images = number of images left out}; nil when
--   interrupted
function Trainer:evaluate()
  self:prepare_tests()
  local now = test(self, self.test_program)
  local fp32 = now and self.fp32_program and test(self, self.fp32_program) or now
  if not now or not fp32 then return nil end
  return {
    loss = now.loss, acc = now.acc, acc_fp32 = fp32.acc, count = now.count, bad_images = now.bad_images,
  }
end

--- Ends the current epoch.
-- @param tested the result of evaluate
-- @return the metrics of the epoch, except seconds; lr is the last step's. And whether test_acc is
--   the best so far
function Trainer:end_epoch(tested)
  local sums, ratios = self.sums, self.plan.graph:ratios()
  local lr = self:lr(self.step - 1)
  self.epoch = self.epoch + 1
  local _, peak = core.memory()
  local metrics = {
    epoch = self.epoch, lr = lr,
    train_loss = sums.loss / sums.count, train_acc = 100 * sums.correct / sums.count,
    test_loss = tested.loss, test_acc = tested.acc, test_acc_fp32 = tested.acc_fp32,
    loss_scale_log2_min = math.log(sums.scale_min, 2), loss_scale_log2_max = math.log(sums.scale_max, 2),
    skipped_steps = sums.skipped, promotions = self.promotions,
    ratio_lo = ratios.ratio_lo, bits_ratio = ratios.bits_ratio,
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
    epoch = self.epoch, batch = self.batches_done, step = self.step, updates = self.model:updates(),
    sums = self.sums, loss_scale = self.scale:save(), formats = resume.formats(self.plan),
    promotions = self.promotions, changes = self.changes, best = self.best,
    settings = configuration.essential(configuration.settings(self.cfg)),
  })
end

--- Continues from a checkpoint.
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
  self.epoch, self.batches_done, self.step = state.epoch, state.batch, state.step
  self.sums, self.promotions, self.best = state.sums, state.promotions, state.best
  self.changes = state.changes -- nil in checkpoints of older versions
  self.model:set_updates(state.updates)
  self.scale:restore(state.loss_scale)
end

--- Reads parameters, and the assignment if the file has one, for an evaluation.
-- @param state the training state, after resume.check_evaluated; nil for parameters saved by
--   PyTorch
-- @param file the opened file; both are results of checkpoint.state
function Trainer:load(state, file)
  checkpoint.load(file, self.graph, self.model, false)
  if not state then return end
  resume.set_formats(file.path, self.plan, state.formats)
  self.epoch, self.step = state.epoch, state.step
end

return M
