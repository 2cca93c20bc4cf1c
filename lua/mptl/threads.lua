--- How many threads compute. By default, one for each processor that the process may use;
-- --threads and OMP_NUM_THREADS set another number.
local core = require "mptl.core"

local M = {}

--- What limits the number of threads that can compute at once.
-- @param p the result of core.processors
-- @return "quota", "affinity" or "processors"; the same in words
function M.limiter(p)
  if p.quota and p.quota < p.allowed then
    return "quota", ("the CPU quota of %.4g processors (%s)"):format(p.quota, p.quota_file)
  elseif p.allowed < p.online then
    return "affinity", ("affinity to %d of %d processors"):format(p.allowed, p.online)
  end
  return "processors", ("%d processors"):format(p.online)
end

--- What decides the default number of threads.
-- @param p the result of core.processors
-- @return "OMP_NUM_THREADS", or what M.limiter returns; the same in words
function M.decider(p)
  local name, text = M.limiter(p)
  if not p.asked then return name, text end
  return "OMP_NUM_THREADS", ("OMP_NUM_THREADS; %d can run at once, by %s"):format(p.usable, text)
end

--- Warns when there are more threads than can run at once: they wait for each other, which is
-- slower than fewer threads.
-- @param option the option that asks for them, such as "--threads 16"
-- @param n number of threads
function M.warn(option, n)
  local p = core.processors()
  if n <= p.usable then return end
  local _, text = M.limiter(p)
  io.stderr:write(("mptl: %s: more threads than the %d that can run at once, by %s; this is slower than fewer\n"):format(option,
    p.usable, text))
end

--- Sets the number of threads that compute.
-- @param n value of --threads; nil for the default
function M.set(n)
  if not n then return end
  M.warn(("--threads %d"):format(n), n)
  core.set_threads(n)
end

return M
