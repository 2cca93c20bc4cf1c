--- A sweep as a job array of the Slurm scheduler: one task a run, each `mptl sweep FILE --task N`.
local core = require "mptl.core"

local M = {}

local function quote(word)
  return word:match "^[%w./_=+-]+$" and word or "'" .. word:gsub("'", "'\\''") .. "'"
end

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

--- The batch script.
-- @param job {name =, tasks = list of numbers, jobs = most at once or nil, threads =, out = directory, words = the command}
-- @return text
function M.script(job)
  local words = {}
  for i, word in ipairs(job.words) do words[i] = quote(word) end
  return table.concat({
    "#!/bin/sh",
    "#SBATCH --job-name=" .. job.name:gsub("[^%w._-]", "_"),
    ("#SBATCH --array=%s%s"):format(M.ranges(job.tasks), job.jobs and "%" .. job.jobs or ""),
    "#SBATCH --ntasks=1",
    ("#SBATCH --cpus-per-task=%d"):format(job.threads),
    ("#SBATCH --output=%s/slurm-%%A_%%a.log"):format(job.out),
    "#SBATCH --signal=INT@60", -- a minute before the time limit: a checkpoint is written
    ('exec %s --task "$SLURM_ARRAY_TASK_ID"'):format(table.concat(words, " ")),
  }, "\n") .. "\n"
end

--- Writes the batch script to OUT/sweep.sbatch and gives it to sbatch.
-- @param job as for script
-- @param arguments further arguments of sbatch, as one text for the shell ("--partition=cpu --time=4:00:00")
-- @return what sbatch said
function M.submit(job, arguments)
  local path = job.out .. "/sweep.sbatch"
  core.write_file(path, { M.script(job) })
  local pipe = assert(io.popen(("sbatch %s %s 2>&1"):format(arguments or "", quote(path)), "r"))
  local said = pipe:read "a"
  local ok = pipe:close()
  if not ok then error(("sbatch failed: %s(the script is %s)"):format(said, path), 0) end
  return (said:gsub("%s+$", ""))
end

return M
