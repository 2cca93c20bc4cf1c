--- mptl sweep: lists and grids of training runs.
local core = require "mptl.core"
local folder = require "mptl.folder"
local json = require "mptl.json"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local options = require "mptl.options"
local progress = require "mptl.progress"
local runner = require "mptl.sweep.runner"
local script = require "mptl.script"
local shell = require "mptl.shell"
local slurm = require "mptl.sweep.slurm"
local state = require "mptl.sweep.state"
local sweep_file = require "mptl.sweep"
local threads = require "mptl.threads"

local M = {
  name = "sweep",
  summary = "run lists and grids of settings, several at once; continues where it was stopped",
}

-- Options of mptl train that the runs get, and those that apply to the sweep itself.
local for_runs, of_sweep = sweep_file.options, { "out", "quiet", "json" }

local function whole(flag, least)
  return function(text)
    local n = math.tointeger(tonumber(text))
    if n and n >= least then return n end
    return nil, ("%s: %s, accepted are whole numbers from %d"):format(flag, text, least)
  end
end

function M.configure(parser)
  parser:argument("sweep", "sweep file: a path, or a name of an installed one")
  parser:option("--jobs", "runs at a time (default: as many as the processors that the process may use "
    .. "have room for)"):argname("N"):convert(whole("--jobs", 1))
  parser:option("--only", "only runs whose name contains TEXT"):argname("TEXT")
  parser:flag("--retry", "run failed runs again")
  parser:flag("--list", "show the runs and how far they are; run nothing")
  parser:flag("--slurm", "submit the runs as a job array to Slurm"):target("slurm")
  parser:option("--array-size", "most tasks of a job array, below the cluster's MaxArraySize; more runs "
    .. "make several arrays"):argname("N"):default("1000"):convert(whole("--array-size", 1))
  parser:option("--sbatch", "further arguments of sbatch: --sbatch='--time=8:00:00 -p cpu'"):argname("TEXT")
  parser:option("--task", "only the Nth run"):argname("N"):convert(whole("--task", 1))
  options.add(parser, of_sweep)
  options.add(parser, for_runs)
end

-- Finds a sweep file: a path, or a name among the installed sweeps, with or without ".lua". Returns
-- its path, or the name if there is no such file.
local function find(name)
  local dir = MPTL_MODELS
  for _, base in ipairs { name, dir and dir .. "/sweeps/" .. name } do
    for _, path in ipairs { base, base .. ".lua" } do
      if lfs.attributes(path, "mode") == "file" then return path end
    end
  end
  return name
end

local function select_runs(sweep, args)
  local list = {}
  for i, run in ipairs(sweep.runs) do
    run.index = i
    local by_name = not args.only or run.name:find(args.only, 1, true)
    local by_number = not args.task or args.task == i
    if by_name and by_number then list[#list + 1] = run end
  end
  if args.task and args.task > #sweep.runs then
    misuse.usage("--task %d: %s has %d runs", args.task, sweep.path, #sweep.runs)
  end
  if #list == 0 then misuse.usage("--only %s: no run of %s has a name with that in it", args.only, sweep.path) end
  return list
end

-- Loads each script once, to report a mistake in it now and not after hours of other runs.
local function check_scripts(runs)
  local seen = {}
  for _, run in ipairs(runs) do
    local arguments = {}
    for name, value in pairs(run.settings) do arguments[name] = value end
    local key = table.concat({ run.settings.script, tostring(run.settings.policy) }, "\0")
    if not seen[key] then script.check(run.settings.script, arguments) end
    seen[key] = true
  end
end

local function write_list(sweep, out)
  local list = {}
  for i, run in ipairs(sweep.runs) do
    local settings = json.object(sweep_file.fields, run.settings) -- in the same order each time
    list[i] = json.object({ "name", "settings" }, { name = run.name, settings = settings })
  end
  folder.make(out)
  local content = json.object({ "name", "file", "runs" },
    { name = sweep.name, file = sweep.path, runs = list })
  core.write_file(out .. "/sweep.json", { json.encode(content, { indent = true }), "\n" })
end

local function summary(run, now)
  local text = ("%-9s %s"):format(now.state, run.name)
  if now.last then
    text = ("%s  epoch %d/%d  test %.2f%% (fp32 %.2f%%)  low %.1f%%"):format(text, now.epoch, now.epochs, now.last.test_acc,
      now.last.test_acc_fp32, 100 * now.last.ratio_lo)
  end
  return now.message and ("%s  %s"):format(text, now.message) or text
end

-- A run as --json prints it.
local function json_line(run, now, dir)
  local last, null = now.last or {}, json.null
  local order = { "name", "dir", "state", "epoch", "epochs", "test_acc", "test_acc_fp32", "ratio_lo", "message" }
  return json.encode(json.object(order, {
    name = run.name, dir = dir, state = now.state, epoch = now.epoch, epochs = now.epochs or null,
    test_acc = last.test_acc or null, test_acc_fp32 = last.test_acc_fp32 or null, ratio_lo = last.ratio_lo or null,
    message = now.message or null,
  }))
end

local function show_list(runs, out, as_json)
  for _, run in ipairs(runs) do
    local dir = out .. "/" .. run.name
    local now = state.of(run, dir)
    local line = as_json and json_line(run, now, dir) or ("%3d  %s"):format(run.index, summary(run, now))
    io.stdout:write(line, "\n")
  end
end

-- The running runs, on one line of the terminal.
local function status_line(self, total, width)
  local parts = {}
  for _, run in pairs(self.running) do
    local now = state.of(run, self:dir(run))
    parts[#parts + 1] = ("%s %d/%s%s"):format(run.name, now.epoch, now.epochs or "?",
      now.last and (" %.1f%%"):format(now.last.test_acc) or "")
  end
  table.sort(parts)
  return ("%d/%d finished; %s"):format(self.finished, total, table.concat(parts, ", ")):sub(1, width - 1)
end

-- What prints the progress of a runner: function say (format, ...) for a line, on_event and on_wait
-- as runner.create takes them.
local function display(runs, out, args)
  local lines = not args.json and not args.quiet
  local bar, drawn = lines and core.isatty(1), 0
  local function say(format, ...)
    if lines then progress.print(bar and "\r\27[K" or "", format:format(...), "\n") end
  end
  local function on_event(event, run, now)
    if event == "begins" then
      say("%-9s %s%s", now.state == "begun" and "goes on" or "begins", run.name,
        now.state == "begun" and ("  after epoch %d of %d"):format(now.epoch, now.epochs) or "")
      return
    end
    now.state = event
    say("%s", summary(run, now))
    if args.json then progress.print(json_line(run, now, out .. "/" .. run.name), "\n") end
  end
  local function on_wait(self)
    if not bar or core.time() - drawn < 2 then return end
    drawn = core.time()
    progress.print("\r\27[K", status_line(self, #runs, core.terminal_width(1)))
  end
  return say, on_event, on_wait
end

local function run_all(runs, out, jobs, args)
  local started = core.time()
  local say, on_event, on_wait = display(runs, out, args)
  local self = runner.create(runs, {
    out = out, jobs = jobs, retry = args.retry, on_event = on_event, on_wait = on_wait,
  })
  local completed = self:run()
  say("%d of %d runs finished, %d of them failed, in %s", self.finished, #runs, self.failures,
    progress.duration(core.time() - started))
  if not completed then
    io.stderr:write("mptl: interrupted; the same command goes on\n")
    return 130
  end
  if self.stopped > 0 then say("%d runs were stopped from outside; the same command goes on", self.stopped) end
  if self.elsewhere > 0 then
    say("%d runs are trained by other processes; --list shows how far they are", self.elsewhere)
  end
  say("draw them: %s", shell.command { "report", options.path(out) })
  return (self.failures > 0 or self.stopped > 0) and 1 or 0
end

-- Numbers of the runs that are still to be trained.
local function unfinished(runs, out, retry)
  local tasks = {}
  for _, run in ipairs(runs) do
    local now = state.of(run, out .. "/" .. run.name).state
    local is_due = now == "new" or now == "begun" or (now == "failed" and retry)
    if is_due then tasks[#tasks + 1] = run.index end
  end
  return tasks
end

local function submit(sweep, runs, out, most, args, overrides)
  local tasks = unfinished(runs, out, args.retry)
  if #tasks == 0 then
    io.stdout:write("nothing to run\n")
    return 0
  end
  local words = { core.executable(), "sweep", options.path(sweep.path), "--jobs", "1" }
  if args.retry then words[#words + 1] = "--retry" end
  for _, word in ipairs(options.words { out = out }) do words[#words + 1] = word end
  for _, word in ipairs(sweep_file.arguments(overrides)) do words[#words + 1] = word end
  local job = {
    name = sweep.name, tasks = tasks, jobs = args.jobs, threads = most, out = out, words = words,
    array_size = args.array_size,
  }
  local arguments = args.sbatch and shell.split(args.sbatch, "--sbatch") or {}
  slurm.check(job, arguments)
  write_list(sweep, out)
  slurm.submit(job, arguments, function(text) io.stdout:write(text, "\n") end)
  return 0
end

function M.run(args)
  local overrides, most = {}, 1
  for _, name in ipairs(for_runs) do overrides[name] = args[name] end
  local sweep = sweep_file.load(find(args.sweep), overrides)
  for _, run in ipairs(sweep.runs) do most = math.max(most, run.settings.threads) end
  local out = (args.out or "sweeps/" .. sweep.name):gsub("(.)/+$", "%1")
  local runs = select_runs(sweep, args)
  if args.list then
    show_list(runs, out, args.json)
    return 0
  end
  check_scripts(runs)
  if args.slurm then return submit(sweep, runs, out, most, args, overrides) end
  if not args.task then write_list(sweep, out) end
  if args.jobs then threads.warn(("--jobs %d, of %d threads each"):format(args.jobs, most), args.jobs * most) end
  return run_all(runs, out, args.jobs or math.max(1, core.processors().usable // most), args)
end

return M
