--- The command line.
local M = {}

--- Runs the command line; returns the exit status.
-- @param argv the arguments, as Lua's `arg`
function M.main(argv)
  return #argv == 0 and 2 or 0
end

return M
