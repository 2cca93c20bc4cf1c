--- Files of JSON lines that a run appends to: {"step":7,...} or {"epoch":2,...} first, in order. A run that goes on from a
-- checkpoint cuts them back to what was written before it.
local core = require "mptl.core"

local M = {}

local File = {}
File.__index = File

--- Cuts a file back to the lines whose field is at most `last`; a line without an end goes too.
-- @param path the file; none is well
-- @param field the name that lines begin with
-- @param last a number
-- @return the texts of the lines that are left, without their ends
function M.keep_until(path, field, last)
  local kept, dropped = {}, false
  local file = io.open(path, "rb")
  if not file then return kept end
  local pattern = ('^%%s*{%%s*"%s"%%s*:%%s*(%%d+)%%s*[,}].*\n$'):format(field)
  for line in file:lines "L" do
    local at = tonumber(line:match(pattern))
    if at and at <= last then kept[#kept + 1] = line else dropped = true end
  end
  file:close()
  if dropped then core.write_file(path, kept) end
  for i, line in ipairs(kept) do kept[i] = line:sub(1, -2) end
  return kept
end

--- Opens a file for adding lines; a failure raises.
-- @param path the file
-- @return the file: append(text), close()
function M.open(path)
  local file, message = io.open(path, "ab")
  if not file then error(("cannot write %s"):format(message), 0) end
  file:setvbuf "line"
  return setmetatable({ file = file, path = path }, File)
end

--- Adds a line.
-- @param text without its end
function File:append(text)
  local ok, message = self.file:write(text, "\n")
  if ok then ok, message = self.file:flush() end
  if not ok then error(("cannot write %s: %s"):format(self.path, message), 0) end
end

function File:close()
  self.file:close()
end

return M
