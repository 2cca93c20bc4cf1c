--- Training runs whose files or allocations fail (spec/faults): checks that must hold after any failure.
local checkpoint = require "mptl.checkpoint"
local events = require "support.events"
local lfs = require "lfs"
local runs = require "support.runs"

local M = {}

local library = os.getenv "MPTL_BUILD" .. "/lib/libmptl_faults.so"
local memory_library = os.getenv "MPTL_BUILD" .. "/lib/libmptl_memory.so"

--- Whether the library was built: not with sanitizers.
M.available = runs.exists(library)

M.kinds = { "ENOSPC", "EIO", "full", "short", "kill", "torn", "power" }

local train = "train tiny.lua --quiet --threads 1 --epochs 2 --steps-every 1 --tensors-every 2 --gradient-error 1 --out "

-- Fields that depend on the clock or on the process.
local unsteady = { "peak_bytes", "images_per_s", "seconds" }

local function text_of(path)
  return runs.exists(path) and runs.slurp(path) or nil
end

local function metrics_text(dir)
  local text = text_of(dir .. "/metrics.jsonl")
  for _, field in ipairs(unsteady) do text = text and text:gsub(('"%s":[^,}]*'):format(field), field) end
  return text
end

-- Scalars as lines of text, in order of tag and step; raises an error if a tag and step appear twice.
local function points_text(dir)
  local lines, seen = {}, {}
  for _, p in ipairs(events.points(dir)) do
    local key = ("%s %06d"):format(p.tag, p.step)
    if seen[key] then error(("the point %s is there twice"):format(key), 0) end
    seen[key] = true
    lines[#lines + 1] = key .. ((p.tag == unsteady[1] or p.tag == unsteady[2]) and "" or (" %.9g"):format(p.value))
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

-- The contents of a run's files as {name = text}, without what depends on the clock.
local function contents(dir)
  local result = { ["metrics.jsonl"] = metrics_text(dir), ["points of TensorBoard"] = points_text(dir) }
  for _, name in ipairs {
    "steps.jsonl", "tensors.jsonl", "gradient_error.jsonl", "changes.jsonl", "plan.json", "last.safetensors", "best.safetensors",
  } do
    result[name] = text_of(("%s/%s"):format(dir, name))
  end
  return result
end

--- Makes a directory with the script, and a run in it without failures.
-- @return {dir =, operations = list of {name =, file =}, whole = the run's contents}; the caller removes the directory
function M.create()
  local self = { dir = runs.directory(), operations = {} }
  assert(os.execute(("mkdir %s/below"):format(self.dir)))
  runs.spill(self.dir .. "/below/tiny.lua", runs.script)
  local code, _, err = M.run(self, "whole", "", 0)
  assert(code == 0 and err == "", err)
  for line in runs.slurp(self.dir .. "/log"):gmatch "[^\n]+" do
    local name, file = line:match "^(%a+) (.*)$"
    file = file:gsub("^whole/", ""):gsub("tfevents.*", "tfevents"):gsub("%.tmp%-%x+$", ".tmp") -- without its random number
    self.operations[#self.operations + 1] = { name = name, file = file }
  end
  self.whole = contents(self.dir .. "/below/whole")
  return self
end

local function environment(self, kind, at)
  if kind == "memory" then return ("LD_PRELOAD=%s FAULTS_LOG=%s/log FAULTS_MEMORY=%d"):format(memory_library, self.dir, at) end
  return ("LD_PRELOAD=%s FAULTS_BELOW=%s/below FAULTS_LOG=%s/log FAULTS_KIND=%s FAULTS_AT=%d"):format(library, self.dir, self.dir,
    kind, at)
end

--- Trains, or continues a run that exists.
-- @param self what M.create returned
-- @param out the run's directory, in dir/below
-- @param kind of fault; "" for none, "memory" for an allocation, nil to run without the library
-- @param at which operation or allocation fails (0 counts them)
-- @return exit status, output, errors
function M.run(self, out, kind, at)
  local below = self.dir .. "/below"
  local resume = runs.exists(("%s/%s/config.json"):format(below, out)) and " --resume" or ""
  os.remove(self.dir .. "/log")
  return runs.mptl(below, train .. out .. resume, kind and environment(self, kind, at))
end

-- Exit status and line of error by kind of fault; nil for no line.
local outcomes = { short = { 0 }, kill = { 137 }, torn = { 137 }, power = { 137 } }
local cannot_write = { 1, "^mptl: cannot write [^\n]+\n$" }

-- Whether a command that got no memory ended as it must: with a line that says what the memory was for, or, if it was not
-- needed, with success.
local function ended_well(code, err)
  local line = err:match "^mptl: ([^\n]*no memory[^\n]*)\n$"
  return code == 1 and line and line ~= "no memory" or code == 0 and err == ""
end

--- Whether a kind of fault has an effect of its own at an operation.
function M.applies(kind, operation)
  if kind == "short" or kind == "torn" then return operation.name == "write" end
  return kind ~= "full" or operation.name == "write" or operation.name == "open"
end

-- Raises an error unless all checkpoints of a run are complete.
local function check_checkpoints(dir)
  for _, name in ipairs { "last", "best" } do
    local path = ("%s/%s.safetensors"):format(dir, name)
    if runs.exists(path) then assert(checkpoint.state(path), path .. ": holds no state") end
  end
end

--- Raises an error unless a run has the same contents as the one without failures.
function M.check_same(self, out)
  local now = contents(("%s/below/%s"):format(self.dir, out))
  for what, text in pairs(self.whole) do
    if now[what] ~= text then error(("%s %s"):format(what, now[what] and "differs" or "is missing"), 0) end
  end
end

--- Lets operations of a command fail, one after the other. Each time it must end with one line and status 1, and under the
-- name that it writes there must be nothing or a complete result: the last operations come after the rename.
-- @param dir of M.command_directory
-- @param case of M.commands
-- @param most the most operations to try with each kind of fault
-- @return list of messages: what is wrong
function M.check_command(dir, case, most)
  local pipe <close> = io.popen(("md5sum %s/archive.tar.gz"):format(dir))
  local sum = pipe:read("l"):match "^%x+"
  local command = case[1]:gsub("DIR", dir):gsub("SUM", sum)
  local whole, out = case[2], "out"
  local self, wrong = { dir = dir }, {}
  local below = dir .. "/below"
  local function run(kind, at)
    runs.remove(("%s/%s %s/%s.*"):format(below, out, below, out))
    os.remove(dir .. "/log")
    return runs.mptl(below, command, environment(self, kind, at))
  end
  local code, _, err = run("", 0)
  assert(code == 0 and err == "", err)
  local operations = select(2, runs.slurp(dir .. "/log"):gsub("\n", "")) - (case.curl or 0)
  assert(operations > 4, "it writes hardly anything")
  for _, kind in ipairs { "ENOSPC", "EIO", "full" } do
    for i = 1, math.min(most, operations) do
      local at = most < operations and i * operations // most or i
      code, _, err = run(kind, at)
      -- a disk that becomes full after everything is written does not matter
      local well = code == 1 and err:find "^mptl: [^\n]+\n$" or kind == "full" and code == 0 and err == ""
      if well and runs.exists(("%s/%s"):format(below, case[3] or out)) then
        well = type(whole) == "function" and whole(below) or type(whole) == "string" and runs.mptl(below, whole) == 0
      end
      if not well then wrong[#wrong + 1] = ("%s at operation %d: exit status %s; %s"):format(kind, at, code, err) end
    end
  end
  return wrong
end

--- Commands other than train that write a file or folder `out`; what checks the result (a command line or a function); the
-- result's name, if it is not `out`.
M.commands = {
  { "data import ../images out --quiet", "data check out" },
  { "data synthesize out --layout cifar10 --train 20 --test 10 --quiet", "data check out/cifar-10-batches-bin" },
  { "data synthesize out --layout folder --train 12 --test 10 --size 32 --quiet", "data check out" },
  { "data synthesize out --layout packed --train 12 --test 10 --size 32 --quiet", "data check out" },
  { "data fetch cifar100 --data out --url file://DIR/archive.tar.gz --md5 SUM --quiet",
    function(below) return #runs.slurp(below .. "/out/cifar-100-binary/test.bin") == 3074 end, "out/cifar-100-binary",
    curl = 3 }, -- operations of curl, a process of its own, which counts them separately
  { "report ../run --output out", "--version" },
  { "report ../run --csv out", "--version" },
}

--- Makes a directory in which these commands run.
-- @return its path; the caller removes it
function M.command_directory()
  local dir = runs.directory()
  assert(os.execute(("mkdir %s/below"):format(dir)))
  assert(runs.mptl(dir, "data synthesize images --layout folder --train 20 --test 10 --size 32 --quiet") == 0)
  assert(runs.mptl(dir, "train tiny.lua --quiet --epochs 1 --out run") == 0)
  assert(os.execute(("mkdir -p %s/in/cifar-100-binary"):format(dir)))
  for _, name in ipairs { "train", "test" } do
    runs.spill(("%s/in/cifar-100-binary/%s.bin"):format(dir, name), "\1\2" .. ("x"):rep(3072))
  end
  assert(os.execute(("tar -C %s/in -czf %s/archive.tar.gz cifar-100-binary"):format(dir, dir)))
  runs.spill(dir .. "/numbers", ("1.3\n-2e9\n"):rep(1000))
  return dir
end

--- Lets one operation of a run fail, and continues the run; raises an error if something is wrong.
-- @param self what M.create returned
-- @param kind of M.kinds, or "memory"
-- @param at which operation, or allocation
function M.check(self, kind, at)
  local out = ("%s-%d"):format(kind, at)
  local dir = ("%s/below/%s"):format(self.dir, out)
  local code, _, err = M.run(self, out, kind, at)
  if kind == "memory" then
    if not ended_well(code, err) then error(("exit status %s; %s"):format(code, err), 0) end
    if code ~= 0 then -- continuing allocates memory, too
      check_checkpoints(dir)
      code, _, err = M.run(self, out, kind, at)
      if not ended_well(code, err) then error(("continuing: exit status %s; %s"):format(code, err), 0) end
    end
  else
    local status, line = table.unpack(outcomes[kind] or cannot_write)
    if code ~= status then error(("exit status %s, expected %d; %s"):format(code, status, err), 0) end
    err = err:gsub("^Killed\n$", "") -- the shell's message
    if not err:find(line or "^$") then error("printed: " .. err, 0) end
  end
  check_checkpoints(dir)
  if code ~= 0 then
    code, _, err = M.run(self, out)
    if code ~= 0 or err ~= "" then error(("continuing: exit status %d; %s"):format(code, err), 0) end
  end
  M.check_same(self, out)
  runs.remove(dir)
end

-- The directory of the run that a sweep started, relative to dir/below; nil when there is none.
local function run_of_sweep(below, out)
  local dir = ("%s/%s"):format(below, out)
  if not lfs.attributes(dir, "mode") then return nil end
  for name in lfs.dir(dir) do
    local is_run = name:find "^tiny" and lfs.attributes(("%s/%s"):format(dir, name), "mode") == "directory"
    if is_run then return ("%s/%s"):format(out, name) end
  end
end

--- Lets operation `at` of a sweep, and of the run that it starts, fail; tries again, and raises an error if something is wrong.
-- @param self what M.create returned
-- @param kind ENOSPC, EIO or full
-- @param at which operation
function M.check_sweep(self, kind, at)
  local below, out = self.dir .. "/below", ("sweep-%s-%d"):format(kind, at)
  runs.spill(below .. "/sweep.lua", [[return {
    common = { epochs = 2, steps_every = 1, tensors_every = 2, gradient_error = 1 }, runs = { { script = "tiny" } },
  }]])
  local command = ("sweep sweep.lua --out %s --threads 1 --jobs 1 "):format(out)
  local code, text, err = runs.mptl(below, command, environment(self, kind, at))
  local reported = text:find "failed +tiny[^\n]* mptl: cannot write [^\n]+\n" or err:find "^mptl: cannot write [^\n]+\n$"
  if code == 1 and not reported then error(("printed: %s%s"):format(text, err), 0) end
  if code ~= 1 and (code ~= 0 or err ~= "") then error(("exit status %s; %s"):format(code, err), 0) end
  local run = run_of_sweep(below, out)
  if run then check_checkpoints(("%s/%s"):format(below, run)) end
  local status, _, message = runs.mptl(below, command .. "--retry")
  if status ~= 0 or message ~= "" then error(("retrying: exit status %s; %s"):format(status, message), 0) end
  M.check_same(self, run or run_of_sweep(below, out))
  runs.remove(("%s/%s"):format(below, out))
end

-- The number of allocations in a log.
local function allocations(dir)
  return math.tointeger(runs.slurp(dir .. "/log"):match "allocations (%d+)")
end

--- Counts the allocations that mptl's modules make in the run.
-- @param self what M.create returned
function M.allocations(self)
  local code, _, err = M.run(self, "counted", "memory", 0)
  assert(code == 0 and err == "", err)
  runs.remove(self.dir .. "/below/counted")
  return allocations(self.dir)
end

--- Checks the run once for each allocation that pick selects, which then fails.
-- @param self what M.create returned
-- @param pick function (at, how many there are) -> boolean
-- @return list of messages: what is wrong
function M.check_memory(self, pick)
  local wrong, count = {}, M.allocations(self)
  for at = 1, count do
    local ok, message = true, nil
    if pick(at, count) then ok, message = pcall(M.check, self, "memory", at) end
    if not ok then wrong[#wrong + 1] = ("allocation %d of %d: %s"):format(at, count, message) end
  end
  return wrong
end

--- Command lines whose allocations fail, in a directory of M.command_directory.
M.allocating = {
  "plan tiny.lua",
  "plan tiny.lua --batch 4 --compute f32",
  "eval tiny.lua run/best.safetensors --threads 1",
  "round --format 'FP(4,3,4)' <numbers",
  "formats",
  "doctor",
  "bench step tiny.lua --steps 2 --threads 1 --profile",
}

--- The same for a command: if it succeeds, it must print what it prints otherwise.
-- @param dir of M.command_directory
-- @param command of M.allocating
-- @param pick as in M.check_memory
-- @return list of messages
function M.check_command_memory(dir, command, pick)
  local self, wrong = { dir = dir }, {}
  local function run(at)
    os.remove(dir .. "/log")
    return runs.mptl(dir, command, environment(self, "memory", at))
  end
  local code, whole, err = run(0)
  assert(code == 0 and err == "", err)
  local timed, count = command:find "^bench" or command == "doctor", allocations(dir)
  for at = 1, count do
    if pick(at, count) then
      local out
      code, out, err = run(at)
      if not ended_well(code, err) or code == 0 and out ~= whole and not timed then
        wrong[#wrong + 1] = ("allocation %d of %d: exit status %s; %s"):format(at, count, code, err)
      end
    end
  end
  return wrong
end

--- Stops a run again and again, and raises an error unless it becomes the same as the one without failures.
-- @param self what M.create returned
-- @param seed selects how and when it is stopped
-- @return how often it was stopped
function M.check_stops(self, seed)
  local kinds, out, x, stops = { "kill", "torn", "power" }, "stops-" .. seed, seed, 0
  local function random(n)
    x = x * 6364136223846793005 + 1442695040888963407
    return (x >> 33) % n + 1
  end
  while true do
    local kind, at = kinds[random(#kinds)], random(#self.operations * 4 // 5)
    local code, _, err = M.run(self, out, kind, at)
    check_checkpoints(("%s/below/%s"):format(self.dir, out))
    if code == 0 then break end
    if code ~= 137 then error(("stop %d, %s at operation %d: exit status %d; %s"):format(stops, kind, at, code, err), 0) end
    stops = stops + 1
    if stops == 100 then error("it does not come to its end", 0) end
  end
  M.check_same(self, out)
  runs.remove(("%s/below/%s"):format(self.dir, out))
  return stops
end

--- Checks every operation that pick selects, for each kind of fault.
-- @param self what M.create returned
-- @param pick function (kind, at) -> boolean
-- @return list of messages: what is wrong
function M.check_all(self, pick)
  local wrong = {}
  for _, kind in ipairs(M.kinds) do
    for at, operation in ipairs(self.operations) do
      if M.applies(kind, operation) and pick(kind, at) then
        local ok, message = pcall(M.check, self, kind, at)
        if not ok then
          wrong[#wrong + 1] = ("%s at operation %d, %s %s: %s"):format(kind, at, operation.name, operation.file, message)
        end
      end
    end
  end
  return wrong
end

return M
