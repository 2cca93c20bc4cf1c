--- Lengths of a part of a training, in settings: a number of steps, or a text such as "0.5 epoch".
local misuse = require "mptl.misuse"

local M = {}

-- The length in steps, or in epochs; both are nil when the value is not a length.
local function parse(value)
  if math.type(value) == "integer" and value > 0 then return value end
  local epochs = type(value) == "string" and tonumber(value:match "^%s*([%d.]+)%s*epochs?%s*$")
  if epochs and epochs > 0 then return nil, epochs end
end

--- The value if it is a length, else an error.
-- @param what name of the setting, for messages
-- @param value what a script gave
-- @return the value
function M.check(what, value)
  local steps, epochs = parse(value)
  if steps or epochs then return value end
  misuse.raise('%s = %s, must be a number of steps or a text such as "1 epoch", "0.5 epoch"', what, tostring(value))
end

--- A length in steps.
-- @param value a checked length
-- @param steps_per_epoch number of steps of an epoch
-- @return a whole number, at least 1
function M.steps(value, steps_per_epoch)
  local steps, epochs = parse(value)
  return steps or math.max(1, math.floor(epochs * steps_per_epoch))
end

return M
