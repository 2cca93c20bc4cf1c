--- Files of JSON lines that a run appends to: {"step":7,...} or {"epoch":2,...} first, in order. A run that goes on from a
-- checkpoint cuts them back to what was written before it.
local core = require "mptl.core"
local lfs = require "lfs"

local M = {}

local File = {}
File.__index = File

local function pattern_of(field)
  return ('^%%s*{%%s*"%s"%%s*:%%s*(%%d+)%%s*[,}]'):format(field)
end

--- What a line begins with.
-- @param line its text
-- @param field the name that it begins with
-- @return a number; nil when the line does not begin so
function M.place(line, field)
  return math.tointeger(tonumber(line:match(pattern_of(field))))
end

--- Cuts a file back to the lines whose field is at most `last`; a line without an end goes too.
-- @param path the file; none is well, one that cannot be read is an error
-- @param field the name that lines begin with
-- @param last a number
-- @return the texts of the lines that are left, without their ends
function M.keep_until(path, field, last)
  local kept, dropped = {}, false
  local file, message = core.open(path)
  if not file then
    if lfs.symlinkattributes(path, "mode") then error(("cannot read %s"):format(message), 0) end
    return kept
  end
  local pattern = pattern_of(field) .. ".*\n$"
  for line in file:lines "L" do
    local at = tonumber(line:match(pattern))
    if at and at <= last then kept[#kept + 1] = line else dropped = true end
  end
  file:close()
  if dropped then core.write_file(path, kept) end
  for i, line in ipairs(kept) do kept[i] = line:sub(1, -2) end
  return kept
end

--- Opens a file for adding lines. Here and below a failure raises "cannot write PATH: why".
-- @param path the file
-- @return the file: append(text), sync(), close()
function M.open(path)
  return setmetatable({ file = core.appender(path) }, File)
end

--- Adds a line, or several with their ends between them: all of it or nothing. The system has it then, the disk not yet.
-- @param text without the last end
function File:append(text)
  self.file:append(text .. "\n")
end

--- Brings all lines to the disk.
function File:sync()
  self.file:sync()
end

--- Closes the file; its lines are on the disk then.
function File:close()
  self:sync()
  self.file:close()
end

return M
