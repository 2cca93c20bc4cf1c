--- Training runs: the loop over epochs, with its files and messages.
local configuration = require "mptl.configuration"
local core = require "mptl.core"
local measure = require "mptl.measure"
local misuse = require "mptl.misuse"
local plan_table = require "mptl.plan_table"
local progress = require "mptl.progress"
local run_directory = require "mptl.run"
local schedule = require "mptl.schedule"
local trainer = require "mptl.trainer"

local M = {}

local function complain(...)
  io.stderr:write("mptl: ", string.format(...), "\n")
end

local function print_line(text)
  local ok, message = io.stdout:write(text, "\n")
  if ok then ok, message = io.stdout:flush() end
  if not ok then error("cannot write standard output: " .. message, 0) end
end

local function create_display(cfg)
  local lines = not cfg.quiet and not cfg.json
  return progress.create {
    epochs = cfg.epochs, lines = lines, bar = lines and core.isatty(1), width = core.terminal_width(1),
  }
end

local function log_changes(run, t, changes)
  for _, c in ipairs(changes) do
    local what = c.cause == "overflow" and "promoted %s of %s to %s" or "%s of %s to %s by the policy"
    run:log("epoch %d step %d: " .. what, t.epoch + 1, t.step, c.role, c.operator, c.to)
    run:change(t.step, t.epoch + 1, c)
  end
end

-- Logs a text and prints it as a warning.
local function warn(run, text)
  run:log("%s", text)
  complain("%s", text)
end

-- Reports a loss that is NaN, once in each epoch. Raises an error if the run shall stop.
local function on_nan(cfg, run, t)
  local where = ("epoch %d, step %d: the loss is NaN"):format(t.epoch + 1, t.step)
  local continues = cfg.on_nan == "continue"
  if cfg.on_nan == nil then continues = t.scale.skip_nonfinite and t:finite() end
  if t.sums.nan_steps == 1 or not continues then
    run:log("%s", where)
    if continues then complain("%s; going on", where) end
  end
  if continues then return end
  local last = t.epoch > 0 and ("%s is of epoch %d"):format(run.last, t.epoch) or "before the first checkpoint"
  error(("%s; stopped, %s"):format(where, last), 0)
end

-- The message about an epoch of which no step was applied; nil for other epochs. Call it right
-- after the last step, while the program has the statistics of it.
local function nothing_applied(t)
  if not t:all_skipped() then return nil end
  local worst, scale = t:overflows(), t.scale
  local trend = scale:at_minimum() and ", and does not fall any more" or ", and falls"
  local overflows = #worst > 0 and "most overflows: " .. table.concat(worst, ", ") or "no overflow was counted"
  return ("epoch %d: none of its %d steps was applied, the gradients were not finite; the loss scale is 2^%.4g%s; %s"):format(
    t.epoch + 1, t.sums.steps, math.log(scale.scale, 2), trend, overflows)
end

-- Prints that message. Raises an error if the run shall stop: when the loss scale cannot fall. Call
-- it when the epoch is in the files and in the checkpoint, so that --resume continues after it.
local function on_skipped(cfg, run, t, text)
  if cfg.on_skipped ~= "continue" and t.scale:at_minimum() then
    error(("%s; stopped, %s is of this epoch; --resume --on-skipped continue continues from it"):format(
      text, run.last), 0)
  end
  run:log("%s", text)
  complain("%s; going on", text)
end

-- The batches that were done in the whole run.
local function batches_done(t)
  return t.epoch * t.batches + t.batches_done
end

-- Draws the progress bar. started: when and where the epoch and the run started in this process.
local function show_step(display, cfg, t, result, started)
  local now, sums, done = core.time(), t.sums, batches_done(t)
  local seconds_a_batch = (now - started.run.time) / math.max(done - started.run.done, 1)
  display:step {
    epoch = t.epoch + 1, step = t.batches_done, steps = t.batches,
    loss = sums.loss / sums.count, acc = 100 * sums.correct / sums.count, loss_scale = result.loss_scale,
    images_per_s = (sums.count - started.count) / math.max(now - started.time, 1e-9),
    eta = (cfg.epochs * t.batches - done) * seconds_a_batch,
  }
end

-- Makes the steps of an epoch. Returns false when interrupted.
local function train_epoch(cfg, run, display, t, run_started)
  local started = { time = core.time(), count = t.sums.count, run = run_started }
  local seconds_before = t.sums.seconds
  t:start_batches()
  while not core.interrupted() do
    local result = t:train_step()
    t.sums.seconds = seconds_before + core.time() - started.time
    if not result then return true end
    log_changes(run, t, result.changes)
    if cfg.steps_every and t.step % cfg.steps_every == 0 then
      run:step {
        step = t.step, epoch = t.epoch + 1, lr = result.lr, loss = result.loss, acc = result.acc,
        loss_scale = result.loss_scale, applied = result.applied,
      }
    end
    if result.loss ~= result.loss then on_nan(cfg, run, t) end
    show_step(display, cfg, t, result, started)
  end
  return false
end

-- Warns that bad images were left out of an epoch, if any were.
local function warn_of_bad_images(run, t, count, split)
  if count == 0 then return end
  warn(run, ("epoch %d: %s"):format(t.epoch + 1, t:left_out(count, split)))
end

-- Warns that good images were not trained on, if any were not: too few of their batch were left.
local function warn_of_lonely_images(run, t)
  local count = t.sums.lonely_images or 0
  if count == 0 then return end
  warn(run, ("epoch %d: no step for %d good training image%s: bad ones left too few in the batch to normalise"):format(
    t.epoch + 1, count, count == 1 and "" or "s"))
end

-- Writes checkpoints. They rely on all lines that were written before, so these are synced first.
local function save(run, t, better)
  run:sync()
  if t.measures then t.measures:sync() end
  if better then t:save(run.best) end
  t:save(run.last)
end

-- Tests after the training of an epoch, and records its gradient error. Returns the result of
-- Trainer:evaluate; nil when interrupted.
local function test_epoch(cfg, display, t)
  display:note(("epoch %d/%d  testing"):format(t.epoch + 1, cfg.epochs))
  local tested = t:evaluate()
  if tested and t.measures and not t.measures:after_epoch() then return nil end
  return tested
end

-- Trains one epoch, tests, writes metrics and checkpoints. Returns the metrics, and the message
-- about an epoch of which no step was applied. Returns nil when interrupted, after writing a
-- checkpoint.
local function one_epoch(cfg, run, display, t, run_started)
  local from = core.time()
  local tested, nothing
  if train_epoch(cfg, run, display, t, run_started) then
    if t.sums.count == 0 then
      local left_out = t:left_out(t.sums.bad_images or 0, "training")
      error(("epoch %d: no step was made: %s"):format(t.epoch + 1, left_out), 0)
    end
    nothing = nothing_applied(t)
    tested = test_epoch(cfg, display, t)
  end
  if not tested then
    save(run, t)
    return nil
  end
  warn_of_bad_images(run, t, t.sums.bad_images or 0, "training")
  warn_of_lonely_images(run, t)
  warn_of_bad_images(run, t, tested.bad_images, "test")
  local metrics, better = t:end_epoch(tested)
  metrics.seconds = core.time() - from
  local line = run:metrics(metrics)
  save(run, t, better)
  if cfg.json then print_line(line) end
  display:epoch(metrics)
  return metrics, nothing
end

-- Logs how a run begins.
local function log_begin(cfg, t, run, resumed)
  if resumed then
    for _, text in ipairs(run.missing) do warn(run, text) end
    run:log("resumed at epoch %d, batch %d of %d", t.epoch + 1, t.batches_done, t.batches)
  else
    run:log("began: %s, policy %s, %d training images, %d test images", cfg.name, tostring(t.plan.policy),
      t.data.train:count(), t.data.test:count())
  end
end

-- Opens the run directory and what writes into it.
local function open_run(cfg, dir, t, plan, resumed)
  local files = { config = configuration.settings(cfg), plan = plan, steps = cfg.steps_every, resume = cfg.resume }
  local run = run_directory.open(dir, files, { epoch = t.epoch, step = t.step, changes = t.changes })
  t.measures = measure.open(cfg, run, t)
  log_begin(cfg, t, run, resumed)
  return run
end

-- Trains until the last epoch is done. Returns whether it was interrupted.
local function all_epochs(cfg, run, display, t)
  local started = { time = core.time(), done = batches_done(t) }
  while t.epoch < cfg.epochs do
    local metrics, nothing = one_epoch(cfg, run, display, t, started)
    if not metrics then return true end
    table.insert(run.history, metrics)
    if nothing then on_skipped(cfg, run, t, nothing) end
  end
  return false
end

-- Logs how a run ended, and closes its files.
local function finish(run, t, failure, interrupted)
  if failure then run:log("failed: %s", misuse.text(failure)) end
  if interrupted then
    run:log("interrupted at epoch %d, batch %d of %d", t.epoch + 1, t.batches_done, t.batches)
  end
  if t.measures then t.measures:close() end
  run:close()
end

local function add_traceback(message)
  local wanted = os.getenv "MPTL_TRACEBACK" and type(message) == "string"
  return wanted and debug.traceback(message, 2) or message
end

--- Trains as a configuration says.
-- @param cfg the result of script.configure
-- @return {dir =, metrics = list by epoch, interrupted = boolean, resumed = boolean}
-- @usage
-- local cfg = mptl.script.configure("resnet18_cifar", { dataset = "synthetic", epochs = 2 })
-- local result = mptl.train.run(cfg)
function M.run(cfg)
  local dir, checkpoint = run_directory.choose(cfg)
  local t = trainer.create(cfg)
  schedule.check_run(cfg.schedule, cfg, t.batches)
  measure.check(cfg, t.data.train:count())
  local plan = plan_table.create(cfg, t.plan) -- before a checkpoint changes the formats
  if checkpoint then t:restore(checkpoint) end
  local run = open_run(cfg, dir, t, plan, checkpoint)
  local display = create_display(cfg)
  display:line("%s, policy %s, %s%s: %d training images in batches of %d; run directory %s", cfg.name,
    tostring(t.plan.policy), cfg.dataset, cfg.device == "cpu" and "" or " on " .. cfg.device,
    t.data.train:count(), cfg.batch, dir)

  core.catch_interrupt()
  local ok, result = xpcall(all_epochs, add_traceback, cfg, run, display, t)
  core.catch_interrupt(false)
  display:clear()
  local interrupted = ok and result
  local closed, mistake = pcall(finish, run, t, not ok and result, interrupted)
  if not ok then error(result, 0) end -- the first error
  if not closed then error(mistake, 0) end
  return { dir = dir, metrics = run.history, interrupted = interrupted, resumed = checkpoint ~= nil }
end

return M
