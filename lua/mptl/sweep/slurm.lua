--- A sweep as job arrays of the Slurm scheduler, with a task `mptl sweep FILE --task N` for each
-- run.
local core = require "mptl.core"
local misuse = require "mptl.misuse"
local options = require "mptl.options"
local shell = require "mptl.shell"

local M = {}

--- Numbers as ranges: {1, 2, 3, 5} is "1-3,5".
-- @param numbers list of whole numbers, ascending
-- @return text
function M.ranges(numbers)
  local parts, i = {}, 1
  while i <= #numbers do
    local j = i
    while numbers[j + 1] == numbers[j] + 1 do j = j + 1 end
    parts[#parts + 1] = i == j and ("%d"):format(numbers[i]) or ("%d-%d"):format(numbers[i], numbers[j])
    i = j + 1
  end
  return table.concat(parts, ",")
end

--- Divides tasks into arrays. Slurm limits the numbers of an array's tasks (to below MaxArraySize),
-- not only how many tasks there are. So each array has its own range of tasks, which it numbers
-- from 1.
-- @param tasks list of whole numbers from 1, ascending
-- @param size how many numbers a range has
-- @return list of {first = what to add to an array's numbers, tasks = list of whole numbers from 1
--   to size}
function M.arrays(tasks, size)
  local list = {}
  for _, task in ipairs(tasks) do
    local first = (task - 1) // size * size
    if #list == 0 or list[#list].first ~= first then list[#list + 1] = { first = first, tasks = {} } end
    table.insert(list[#list].tasks, task - first)
  end
  return list
end

-- The pattern of the tasks' log files for #SBATCH: in quotes, with a backslash before a quote, and
-- two percent signs for one, since Slurm replaces what follows a percent sign.
local function log_files(dir)
  return ('"%s/slurm-%%A_%%a.log"'):format((dir:gsub('"', '\\"'):gsub("%%", "%%%%")))
end

--- Raises an error for words that a batch script cannot contain: a control character would end the
-- line or be changed.
-- @param job as in M.script
-- @param arguments as in M.submit
function M.check(job, arguments)
  local function check(what, word, pattern, which)
    if not word:find(pattern) then return end
    misuse.usage("%s: %s: holds %s, accepted are words without", what, shell.quote(word), which)
  end
  check("--slurm with --out", job.out, "%c", "a control character")
  check("--slurm with --out", job.out, "\\", "a backslash") -- switches off the pattern of log files
  for _, word in ipairs(job.words) do check("--slurm", word, "%c", "a control character") end
  for _, word in ipairs(arguments) do check("--sbatch", word, "%c", "a control character") end
end

--- The batch script of an array. The shell replaces itself by mptl (exec), so that mptl gets the
-- signal of --signal=B: a shell would handle it only after mptl has ended.
-- @param job {name =, jobs = most tasks at once or nil, threads =, out = directory, words = the
--   command}
-- @param array an array from M.arrays
-- @param after number of the job that must end first; nil for none
-- @return text
function M.script(job, array, after)
  local task = array.first == 0 and "$SLURM_ARRAY_TASK_ID" or ("$((SLURM_ARRAY_TASK_ID + %d))"):format(array.first)
  local lines = {
    "#!/bin/sh",
    "#SBATCH --job-name=" .. job.name:gsub("[^%w._-]", "_"),
    ("#SBATCH --array=%s%s"):format(M.ranges(array.tasks), job.jobs and "%" .. job.jobs or ""),
    "#SBATCH --ntasks=1",
    ("#SBATCH --cpus-per-task=%d"):format(job.threads),
    "#SBATCH --output=" .. log_files(job.out),
    "#SBATCH --signal=B:INT@60", -- a minute before the time limit, so that mptl writes a checkpoint
  }
  if after then lines[#lines + 1] = "#SBATCH --dependency=afterany:" .. after end
  lines[#lines + 1] = ('exec %s --task "%s"'):format(shell.join(job.words), task)
  return table.concat(lines, "\n") .. "\n"
end

-- Submits a script to sbatch; returns the job's number, or nil and sbatch's message.
local function submit_script(path, arguments)
  local words = { "sbatch", "--parsable", table.unpack(arguments) }
  words[#words + 1] = options.path(path)
  local pipe = assert(io.popen(shell.join(words) .. " 2>&1", "r"))
  local output = pipe:read "a"
  local ok, _, code = pipe:close()
  local number = ok and ("\n" .. output):match "\n(%d+)[;%s]"
  if number then return number end
  if code == 127 then return nil, "there is no sbatch here; a cluster's login node has it" end
  return nil, (output:gsub("%s+$", ""):gsub("\n%s*", " "))
end

--- Writes batch scripts OUT/sweep.sbatch (for several arrays OUT/sweep-N.sbatch) and submits them.
-- With a limit on the tasks at once, an array waits for the one before it, since Slurm applies the
-- limit to each array alone.
-- @param job as in M.script, checked, with tasks = list of numbers, array_size = as in M.arrays
-- @param arguments list of further words for sbatch ({ "--partition=cpu", "--time=4:00:00" })
-- @param say function (text), called for each array
function M.submit(job, arguments, say)
  local arrays, before = M.arrays(job.tasks, job.array_size), nil
  for i, array in ipairs(arrays) do
    local path = ("%s/sweep%s.sbatch"):format(job.out, #arrays > 1 and "-" .. i or "")
    core.write_file(path, { M.script(job, array, job.jobs and before) })
    local number, message = submit_script(path, arguments)
    if not number then
      local others = #arrays > 1 and ("; of %d arrays %d were submitted before"):format(#arrays, i - 1) or ""
      error(("sbatch %s: %s%s"):format(path, message ~= "" and message or "failed", others), 0)
    end
    say(("submitted job %s: %d runs"):format(number, #array.tasks))
    before = number
  end
end

return M
