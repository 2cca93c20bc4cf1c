--- Files of JSON lines that a run appends to. Lines begin with their step or epoch, {"step":7,...}
-- or {"epoch":2,...}, and come in that order. A run that continues from a checkpoint first removes
-- the lines that were written after it.
local core = require "mptl.core"
local lfs = require "lfs"

local M = {}

local File = {}
File.__index = File

local function pattern_of(field)
  return ('^%%s*{%%s*"%s"%%s*:%%s*(%%d+)%%s*[,}]'):format(field)
end

--- The step or epoch that a line begins with.
-- @param line its text
-- @param field "step" or "epoch"
-- @return a whole number; nil when the line does not begin with that field
function M.place(line, field)
  return math.tointeger(tonumber(line:match(pattern_of(field))))
end

--- Cuts a file back to the lines whose field is at most `last`. Removes a line without an end, too.
-- @param path the file; it may be missing, but a file that cannot be read is an error
-- @param field "step" or "epoch"
-- @param last a number
-- @return the texts of the remaining lines, without their ends
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

--- Opens a file for adding lines. This and the functions below raise "cannot write PATH: why".
-- @param path the file
-- @return the file: append(text), sync(), close()
function M.open(path)
  return setmetatable({ file = core.appender(path) }, File)
end

--- Adds a line, or several with their ends between them: all of it or nothing. The text may not be
-- on the disk yet.
-- @param text the text, without the last line's end
function File:append(text)
  self.file:append(text .. "\n")
end

--- Waits until all lines are on the disk.
function File:sync()
  self.file:sync()
end

--- Closes the file, with all its lines on the disk.
function File:close()
  self:sync()
  self.file:close()
end

return M
