--- Memory that programs will take, against what the system leaves to the process: refused before anything is computed, since a
-- library that gets no memory in the middle of a step may end the process.
local core = require "mptl.core"

local M = {}

local function gigabytes(bytes)
  return ("%.4g GB"):format(bytes / 1e9)
end

--- What programs of one model take that run one after the other and share a workspace.
-- @param list of {assignment, {batch =, train =, ...}}, what core.predict_memory takes but for the device
-- @return bytes, of the host
function M.predict(list)
  local parameters, own, arena, scratch = 0, 0, 0, 0
  for _, program in ipairs(list) do
    local m = core.predict_memory(table.unpack(program)) -- on the CPU
    parameters, own = math.max(parameters, m.parameters), own + m.images + m.state + m.record
    arena, scratch = math.max(arena, m.arena), math.max(scratch, m.scratch)
  end
  return parameters + own + arena + scratch
end

--- Raises when programs take more than the process may have. Of a device's own memory nothing is known here.
-- @param what needs it, in words: "training"
-- @param device where the programs run
-- @param list as for M.predict
function M.check(what, device, list)
  if device ~= "cpu" then return end
  local available, limiter = core.memory_limit()
  local predicted = available and M.predict(list)
  if not predicted or predicted <= available then return end
  error(("memory: %s takes %s (%d bytes), %s leaves %s (%d bytes); a smaller --batch, --width or --image-size takes less"):format(
    what, gigabytes(predicted), predicted, limiter, gigabytes(available), available), 0)
end

return M
