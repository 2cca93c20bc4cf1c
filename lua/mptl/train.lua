--- Training runs: the loop over epochs, what it writes and what it says.
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

-- A loss that is NaN: said once an epoch; returns whether to stop.
local function on_nan(cfg, run, t)
  local where = ("epoch %d, step %d: the loss is NaN"):format(t.epoch + 1, t.step)
  local go_on = cfg.on_nan == "continue" or (cfg.on_nan ~= "stop" and t.scale.skip_nonfinite and t:finite())
  if t.sums.nan_steps == 1 or not go_on then
    run:log("%s", where)
    if go_on then complain("%s; going on", where) end
  end
  if go_on then return end
  error(("%s; stopped, %s"):format(where,
    t.epoch > 0 and ("%s is of epoch %d"):format(run.last, t.epoch) or "before the first checkpoint"), 0)
end

-- An epoch of which no step was applied: what is said of it; nil for others. Before the tests, which make other steps.
local function nothing_applied(t)
  if not t:all_skipped() then return nil end
  local worst, scale = t:overflows(), t.scale
  return ("epoch %d: none of its %d steps was applied, the gradients were not finite; the loss scale is 2^%.4g%s; %s"):format(
    t.epoch + 1, t.sums.steps, math.log(scale.scale, 2), scale:at_floor() and ", and does not fall any more" or ", and falls",
    #worst > 0 and "most overflows: " .. table.concat(worst, ", ") or "no overflow was counted")
end

-- Said once such an epoch is in the files and the checkpoint: so --resume goes on behind it. While a smaller scale can be tried
-- the run goes on.
local function on_skipped(cfg, run, t, text)
  if cfg.on_skipped ~= "continue" and t.scale:at_floor() then
    error(("%s; stopped, %s is of this epoch; --on-skipped continue goes on"):format(text, run.last), 0)
  end
  run:log("%s", text)
  complain("%s; going on", text)
end

local function show_step(display, cfg, t, result, started)
  local seconds = core.time() - started.time
  local sums = t.sums
  local done = t.epoch * t.batches + t.batch
  display:step {
    epoch = t.epoch + 1, step = t.batch, steps = t.batches,
    loss = sums.loss / sums.count, acc = 100 * sums.correct / sums.count,
    images_per_s = (sums.count - started.count) / math.max(seconds, 1e-9), loss_scale = result.loss_scale,
    eta = (cfg.epochs * t.batches - done) * (core.time() - started.run) / math.max(done - started.done, 1),
  }
end

-- The steps of an epoch; false when interrupted.
local function train_epoch(cfg, run, display, t, run_started)
  local started = { time = core.time(), count = t.sums.count, run = run_started.time, done = run_started.done }
  local before = t.sums.seconds
  t:start_batches()
  while not core.interrupted() do
    local result = t:train_step()
    t.sums.seconds = before + core.time() - started.time
    if not result then return true end
    log_changes(run, t, result.changes)
    if cfg.steps_every and t.step % cfg.steps_every == 0 then
      run:step {
        step = t.step, epoch = t.epoch + 1, lr = result.lr, loss = result.loss, acc = result.acc, loss_scale = result.loss_scale,
        applied = result.applied,
      }
    end
    if result.loss ~= result.loss then on_nan(cfg, run, t) end
    show_step(display, cfg, t, result, started)
  end
  return false
end

-- Says how many images an epoch had to leave out.
local function tell_bad_images(run, t, count, split)
  if count == 0 then return end
  local text = ("epoch %d: %s"):format(t.epoch + 1, t:left_out(count, split))
  run:log("%s", text)
  complain("%s", text)
end

-- Says of how many good images a step could not be made, since bad ones had left their batch too small.
local function tell_lonely_images(run, t)
  local count = t.sums.lonely_images or 0
  if count == 0 then return end
  local text = ("epoch %d: no step for %d good training image%s: bad ones left too few in the batch to normalise"):format(
    t.epoch + 1, count, count == 1 and "" or "s")
  run:log("%s", text)
  complain("%s", text)
end

-- Writes a checkpoint. It counts on all lines that were written before, so these are on the disk first.
local function save(run, t, better)
  run:sync()
  if t.measures then t.measures:sync() end
  if better then t:save(run.best) end
  t:save(run.last)
end

-- Training of one epoch, test, metrics, checkpoints; nil when interrupted, then a checkpoint of the state so far was written.
local function one_epoch(cfg, run, display, t, run_started)
  local from = core.time()
  local tested
  local nothing
  if train_epoch(cfg, run, display, t, run_started) then
    if t.sums.count == 0 then
      error(("epoch %d: no step was made: %s"):format(t.epoch + 1, t:left_out(t.sums.bad_images or 0, "training")), 0)
    end
    nothing = nothing_applied(t)
    display:note(("epoch %d/%d  testing"):format(t.epoch + 1, cfg.epochs))
    tested = t:evaluate()
    if tested and t.measures and not t.measures:after_epoch() then tested = nil end
  end
  if not tested then
    save(run, t)
    return nil
  end
  tell_bad_images(run, t, t.sums.bad_images or 0, "training")
  tell_lonely_images(run, t)
  tell_bad_images(run, t, tested.bad_images, "test")
  local metrics, better = t:end_epoch(tested)
  metrics.seconds = core.time() - from
  local line = run:metrics(metrics)
  save(run, t, better)
  if cfg.json then print_line(line) end
  display:epoch(metrics)
  return metrics, nothing
end

local function begin(cfg, t, run, resumed)
  if resumed then
    for _, text in ipairs(run.missing) do
      complain("%s", text)
      run:log("%s", text)
    end
    run:log("resumed at epoch %d, batch %d of %d", t.epoch + 1, t.batch, t.batches)
  else
    run:log("began: %s, policy %s, %d training images, %d test images", cfg.name, tostring(t.plan.policy),
      t.data.train:count(), t.data.test:count())
  end
end

--- Trains as a configuration says.
-- @param cfg what script.configure returned
-- @return {dir =, metrics = list by epoch, interrupted = boolean, resumed = boolean}
-- @usage local result = mptl.train.run(mptl.script.configure("resnet18_cifar", { dataset = "synthetic", epochs = 2 }))
function M.run(cfg)
  local dir, checkpoint = run_directory.choose(cfg)
  local t = trainer.create(cfg)
  schedule.check_run(cfg.schedule, cfg, t.batches)
  measure.check(cfg, t.data.train:count())
  local plan = plan_table.create(cfg, t.plan)
  if checkpoint then t:restore(checkpoint) end
  local files = { config = configuration.settings(cfg), plan = plan, steps = cfg.steps_every, resume = cfg.resume }
  local run = run_directory.open(dir, files, { epoch = t.epoch, step = t.step, changes = t.changes })
  t.measures = measure.open(cfg, run, t)
  local display = create_display(cfg)
  begin(cfg, t, run, checkpoint)
  local on = cfg.device == "cpu" and "" or " on " .. cfg.device
  display:line("%s, policy %s, %s%s: %d training images in batches of %d; run directory %s", cfg.name, tostring(t.plan.policy),
    cfg.dataset, on, t.data.train:count(), cfg.batch, dir)

  core.catch_interrupt()
  local history, interrupted = run.history, false
  local started = { time = core.time(), done = t.epoch * t.batches + t.batch }
  local ok, message = xpcall(function()
    while t.epoch < cfg.epochs and not interrupted do
      local metrics, nothing = one_epoch(cfg, run, display, t, started)
      history[#history + 1] = metrics
      interrupted = metrics == nil
      if nothing then on_skipped(cfg, run, t, nothing) end
    end
  end, function(m) return os.getenv "MPTL_TRACEBACK" and type(m) == "string" and debug.traceback(m, 2) or m end)
  core.catch_interrupt(false)
  display:clear()
  local closed, mistake = pcall(function()
    if not ok then run:log("failed: %s", misuse.text(message)) end
    if interrupted then run:log("interrupted at epoch %d, batch %d of %d", t.epoch + 1, t.batch, t.batches) end
    if t.measures then t.measures:close() end
    run:close()
  end)
  if not ok then error(message, 0) end -- what came first
  if not closed then error(mistake, 0) end
  return { dir = dir, metrics = history, interrupted = interrupted, resumed = checkpoint ~= nil }
end

return M
