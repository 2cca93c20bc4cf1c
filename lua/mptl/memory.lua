--- Compares the memory that programs will take with what the process may still have, before
-- anything is computed: a library that gets no memory in the middle of a step may end the process.
local core = require "mptl.core"

local M = {}

local function gigabytes(bytes)
  return ("%.4g GB"):format(bytes / 1e9)
end

--- The memory of programs that share a model and a workspace and run one after the other.
-- @param list list of {assignment, {batch =, train =, ...}}: arguments of core.predict_memory,
--   without the device
-- @return bytes of the host's memory
function M.predict(list)
  local parameters, own, arena, scratch = 0, 0, 0, 0
  for _, program in ipairs(list) do
    local m = core.predict_memory(table.unpack(program)) -- on the CPU
    parameters, own = math.max(parameters, m.parameters), own + m.images + m.state + m.record
    arena, scratch = math.max(arena, m.arena), math.max(scratch, m.scratch)
  end
  return parameters + own + arena + scratch
end

--- Raises an error when programs take more memory than the process may have. Checks the host's
-- memory only, so does nothing when another device computes.
-- @param what what needs the memory, in words: "training"
-- @param device where the programs run
-- @param list as in M.predict
function M.check(what, device, list)
  if device ~= "cpu" then return end
  local available, limiter = core.memory_limit()
  local predicted = available and M.predict(list)
  if not predicted or predicted <= available then return end
  error(("memory: %s takes %s (%d bytes), %s leaves %s (%d bytes); a smaller --batch, --width or --image-size takes less"):format(
    what, gigabytes(predicted), predicted, limiter, gigabytes(available), available), 0)
end

return M
