--- mptl: training with low-precision floating-point assignments.
-- `local mptl = require "mptl"`; works in a stock Lua 5.4 and in the program `mptl`.
local core = require "mptl.core"

local M = {
  tensor = core.tensor,
}

return M
