--- mptl bench step: how long a training step takes, and how much memory, on made-up images in
-- memory.
--
-- A step does what a step of `mptl train` does. The host waits for the device once, for the loss
-- and the overflows, which decide whether to make the update. It does not wait for the update: on a
-- GPU the update runs while the next step begins, and its time counts for that step.
local core = require "mptl.core"
local json = require "mptl.json"
local memory = require "mptl.memory"
local options = require "mptl.options"
local profile = require "mptl.profile"
local script = require "mptl.script"
local threads = require "mptl.threads"
local trainer = require "mptl.trainer"

local M = { name = "step", summary = "time and memory of a training step of a script" }

local order = {
  "script", "policy", "ratio", "storage", "device", "threads", "batch", "steps", "ms_median", "ms_min", "images_per_s",
  "peak_bytes", "predicted_bytes", "saved_bytes", "operators",
}

-- Steps that are not measured: memory is touched for the first time, libraries compile, and a GPU
-- raises its clock (PyTorch gets as many there in bench/step_vs_pytorch).
local function warm_up_on(device)
  return device == "cpu" and 3 or 10
end

function M.configure(parser)
  parser:argument("script", "model script: a path, or a name of an installed one")
  options.add(parser)
  parser:option("--steps", "steps to measure", "20"):argname("N"):convert(function(text)
    local n = math.tointeger(tonumber(text))
    if n and n > 0 then return n end
    return nil, ("--steps: %s, accepted are whole numbers from 1"):format(text)
  end)
  parser:flag("--profile",
    "time, arithmetic and memory traffic by operator, beside the device's peaks")
end

-- Images in NHWC, with values in the range of normalised ones, and labels; the same at every call.
-- As a training's batches, they are in memory that the device can read, and every step uploads
-- them.
local function made_up_batch(cfg)
  local c, h, w = table.unpack(cfg.input)
  local values, labels, x = {}, {}, 1
  for i = 1, cfg.batch * c * (h or 1) * (w or 1) do
    x = (x * 1103515245 + 12345) & 0x7fffffff
    values[i] = (x >> 15) / 2 ^ 14 - 2
  end
  for i = 1, cfg.batch do labels[i] = i % cfg.classes end
  return core.tensor({ #values }, values, cfg.device), labels
end

--- Runs the benchmark.
-- @param cfg the configuration
-- @param steps how many steps to measure
-- @param profiling whether to make a profile, too
-- @return table of the fields that --json prints; the profile (mptl.profile) or nil
function M.benchmark(cfg, steps, profiling)
  threads.set(cfg.threads)
  local graph = script.record(cfg)
  local plan = script.plan(cfg, graph)
  local profiled = profiling and profile.create(graph, plan,
    { compute = cfg.compute, device = cfg.device, peaks = core.peaks { device = cfg.device }, optimizer = cfg.optimizer.name })
  local settings = { batch = cfg.batch, rounding = cfg.rounding, seed = cfg.seed, compute = cfg.compute, storage = cfg.storage,
    optimizer = cfg.optimizer.name }
  memory.check("a training step", cfg.device, { { plan.assignment, settings } })
  collectgarbage() -- what that took is not the step's
  local model = core.model(graph, { seed = cfg.seed, device = cfg.device, optimizer = cfg.optimizer.name,
    parameter_groups = cfg.optimizer:parameter_groups(graph) })
  local program = core.program(model, plan.assignment, settings)
  program:time_stages(profiling or false)
  local images, labels = made_up_batch(cfg)
  core.memory_reset_peak()
  local update = cfg.optimizer:update(1e-3)
  update.loss_scale = trainer.is_fp32(plan) and 1 or 1024
  local times, warm_up = {}, warm_up_on(cfg.device)
  for i = 1, warm_up + steps do
    update.step = i
    local from = core.time()
    program:step(images, labels, update)
    if profiled and i > warm_up then profiled:add(program, core.time() - from) end
    if plan.policy.threshold then program:promote(plan.policy.threshold) end
    if i > warm_up then times[i - warm_up] = 1000 * (core.time() - from) end
  end
  local _, peak = core.memory()
  table.sort(times)
  local median = 0.5 * (times[(steps + 1) // 2] + times[steps // 2 + 1])
  local taken = program:memory()
  return {
    script = cfg.name, policy = cfg.policy, ratio = cfg.ratio or json.null, storage = cfg.storage, device = cfg.device,
    threads = core.threads(), batch = cfg.batch, steps = steps, ms_median = median, ms_min = times[1],
    images_per_s = 1000 * cfg.batch / median, peak_bytes = peak, predicted_bytes = taken.total, saved_bytes = taken.saved,
  }, profiled
end

function M.run(args)
  local cfg = script.configure(args.script, args)
  local result, profiled = M.benchmark(cfg, args.steps, args.profile)
  if args.json then
    if args.profile then result.operators = json.array((profiled:table())) end
    io.stdout:write(json.encode(json.object(order, result)), "\n")
  else
    io.stdout:write(("%s, %s, batch %d, %d threads: %.1f ms a step (least %.1f), %.0f images/s, %.1f MB (planned %.1f)\n"):format(
      result.script, result.policy, result.batch, result.threads, result.ms_median, result.ms_min, result.images_per_s,
      result.peak_bytes / 1e6, result.predicted_bytes / 1e6))
    if args.profile then io.stdout:write("\n", profiled:text()) end
  end
  return 0
end

return M
