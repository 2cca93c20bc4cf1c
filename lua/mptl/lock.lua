--- Files that one process has at a time, until it closes them or ends.
local core = require "mptl.core"

local M = {}

--- Takes a file, which is made if need be. Its name may be removed only where whoever takes the name anew sees that all is done.
-- @param path the file
-- @return the open file; nil when another process has it. A file system that has no locks is an error that says so, unless the
-- environment has MPTL_LOCKS=none
function M.take(path)
  return core.lock(path)
end

--- Whether another process has a file, which need not be there.
-- @param path the file
-- @return true or false
function M.is_taken(path)
  return core.is_locked(path)
end

return M
