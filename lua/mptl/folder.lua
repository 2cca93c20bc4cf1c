--- Folders on disk.
local core = require "mptl.core"
local lfs = require "lfs"
local misuse = require "mptl.misuse"

local M = {}

--- What is at a path. Raises a usage error, "PATH: why", when there is nothing.
-- @param path a path that the user gave
-- @return "file", "directory" or another mode of LuaFileSystem
function M.mode(path)
  local mode, message = lfs.attributes(path, "mode")
  if mode then return mode end
  local why = message:gsub("^cannot obtain information from file '.*': ", "")
  misuse.usage("%s: %s", path, why)
end

--- Makes the folders above a path, unless they exist.
-- @param path of a file or folder
function M.make_above(path)
  local parent = path:match "^(.+)/[^/]+/*$"
  if parent and not lfs.attributes(parent, "mode") then M.make(parent) end
end

--- Makes a folder and those above it; it may exist already.
-- @param path the folder
function M.make(path)
  if lfs.attributes(path, "mode") == "directory" then return end
  M.make_above(path)
  local ok, message = lfs.mkdir(path)
  -- Another process may have made it meanwhile.
  if not ok and lfs.attributes(path, "mode") ~= "directory" then
    error(("cannot make the directory %s: %s"):format(path, message), 0)
  end
  core.sync_folder(path:match "^(.+)/[^/]+/*$" or path:match "^/" or ".")
end

--- Removes a folder and everything in it, or a single file. Removes links and does not follow them.
-- Does nothing when the path does not exist.
-- @param path the folder
function M.remove(path)
  if lfs.symlinkattributes(path, "mode") ~= "directory" then
    os.remove(path)
    return
  end
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then M.remove(path .. "/" .. name) end
  end
  lfs.rmdir(path)
end

return M
