--- How many threads compute: as many as the process may use of the processors, unless --threads or OMP_NUM_THREADS says
-- otherwise.
local core = require "mptl.core"

local M = {}

--- What decides how many threads can compute at once.
-- @param p what core.processors returns
-- @return "quota", "affinity" or "processors"; the same in words
function M.limiter(p)
  if p.quota and p.quota < p.allowed then
    return "quota", ("the CPU quota of %.4g processors (%s)"):format(p.quota, p.quota_file)
  elseif p.allowed < p.online then
    return "affinity", ("affinity to %d of %d processors"):format(p.allowed, p.online)
  end
  return "processors", ("%d processors"):format(p.online)
end

--- What decides the default.
-- @param p what core.processors returns
-- @return "OMP_NUM_THREADS" or as M.limiter; the same in words
function M.decider(p)
  local name, text = M.limiter(p)
  if not p.asked then return name, text end
  return "OMP_NUM_THREADS", ("OMP_NUM_THREADS; %d can run at once, by %s"):format(p.usable, text)
end

--- Warns of more threads than can run at once: they wait for each other, and are slower than fewer.
-- @param option that asks for them, as "--threads 16"
-- @param n threads
function M.warn(option, n)
  local p = core.processors()
  if n <= p.usable then return end
  local _, text = M.limiter(p)
  io.stderr:write(("mptl: %s: more threads than the %d that can run at once, by %s; this is slower than fewer\n"):format(option,
    p.usable, text))
end

--- Has n threads compute.
-- @param n as --threads says; nil for the default
function M.set(n)
  if not n then return end
  M.warn(("--threads %d"):format(n), n)
  core.set_threads(n)
end

return M
