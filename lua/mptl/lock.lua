--- Files that one process has at a time, until it closes them or ends.
local lfs = require "lfs"

local M = {}

--- Takes a file, which is made if need be. Its name may be removed only where whoever takes the name anew sees that all is done.
-- @param path the file
-- @return the open file; nil when another process has it
function M.take(path)
  local file, message = io.open(path, "a")
  if not file then error(("cannot write %s"):format(message), 0) end
  if lfs.lock(file, "w") then return file end
  file:close()
end

--- Whether another process has a file, which need not be there.
-- @param path the file
-- @return true or false
function M.is_taken(path)
  local file = io.open(path, "r")
  if not file then return false end
  local is_free = lfs.lock(file, "r")
  file:close()
  return not is_free
end

return M
