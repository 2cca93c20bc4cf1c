-- Replaces Slurm's sbatch and the cluster: reads options as sbatch does, and runs the tasks one after the other.
--   MAX_ARRAY=n     MaxArraySize, by default 1001: task numbers must be below it
--   TIME_LIMIT=path when this file exists, a task's time is nearly over: the process of the batch script gets the signal of
--                   --signal if that begins with "B:" (otherwise only processes that srun started would get it), and is killed
--                   with its children 20 s later
--   NO_TASKS=1      accepts jobs and runs nothing
-- Each job adds a line to sbatch.txt: its number, its array, its dependency, the arguments.
local core = require "mptl.core"
local lfs = require "lfs"

local function refuse(...)
  io.stderr:write("sbatch: error: ", string.format(...), "\n")
  os.exit(1)
end

local known = {}
for name in ("job-name array ntasks cpus-per-task output signal dependency time partition comment"):gmatch "%S+" do
  known[name] = true
end

-- The words of a #SBATCH line: quotes group, a backslash quotes the next character (inside of quotes, too), # begins a comment.
local function words_of(line)
  local words, word, quote, i = {}, nil, nil, 1
  while i <= #line do
    local c = line:sub(i, i)
    if c == "\\" then
      i = i + 1
      word = (word or "") .. line:sub(i, i)
    elseif quote then
      if c == quote then quote = nil else word = (word or "") .. c end
    elseif c == '"' or c == "'" then
      quote = c
    elseif c == "#" then
      break
    elseif c:find "%s" then
      words[#words + 1], word = word, nil
    else
      word = (word or "") .. c
    end
    i = i + 1
  end
  if quote then refuse("Unmatched `%s` in [%s]", quote, line) end
  words[#words + 1] = word
  return words
end

local options = {}

-- Reads options; returns the first word that is not one.
local function take(words)
  local i = 1
  while words[i] do
    local name, value = words[i]:match "^%-%-([%a-]+)=?(.*)$"
    if words[i] == "-p" then
      name, value, i = "partition", words[i + 1], i + 1
    end
    if not name then return words[i] end
    if name ~= "parsable" and not known[name] then refuse("unrecognized option '%s'", words[i]) end
    options[name] = value
    i = i + 1
  end
end

local script = take(arg)
local text = {}
for line in assert(io.open(script)):lines() do text[#text + 1] = line end
for _, line in ipairs(text) do -- up to the first command; the command line overrides them
  if line:find "^%s*[^#%s]" then break end
  if line:find "^#SBATCH" and take(words_of(line:sub(8))) then refuse("Invalid directive found in batch script: %s", line) end
end
take(arg)

local tasks = {}
for first, last in options.array:gsub("%%.*", ""):gmatch "(%d+)%-?(%d*)" do
  for task = tonumber(first), tonumber(last) or tonumber(first) do tasks[#tasks + 1] = task end
end
for _, task in ipairs(tasks) do
  if task >= tonumber(os.getenv "MAX_ARRAY" or 1001) then
    refuse("Batch job submission failed: Invalid job array specification")
  end
end

local number = 7
for _ in (io.open "sbatch.txt" and io.lines "sbatch.txt" or function() end) do number = number + 1 end
local notes <close> = assert(io.open("sbatch.txt", "a"))
notes:write(("%d %s %s %s\n"):format(number, options.array, options.dependency or "-", table.concat(arg, "|")))

local function ended(pid, seconds)
  local from = core.time()
  repeat
    if core.wait_child(0.05) == pid then return true end
  until core.time() > from + seconds
end

local function run(task)
  local output = options.output:gsub("%%(.)", { A = number, a = task, ["%"] = "%" })
  local pid = core.spawn({ "env", "SLURM_ARRAY_TASK_ID=" .. task, "sh", script }, output)
  local limit = os.getenv "TIME_LIMIT"
  repeat
    if ended(pid, 0.1) then return end
  until limit and lfs.attributes(limit, "mode")
  local signal = (options.signal or ""):match "^B:(%u+)"
  if signal then os.execute(("kill -%s %d"):format(signal, pid)) end
  if not ended(pid, 20) then
    os.execute(("kill -KILL %d $(cat /proc/%d/task/%d/children)"):format(pid, pid, pid))
    ended(pid, 20)
  end
end

if not os.getenv "NO_TASKS" then
  for _, task in ipairs(tasks) do run(task) end
end
print(options.parsable and number or "Submitted batch job " .. number)
