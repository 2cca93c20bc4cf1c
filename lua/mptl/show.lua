--- Values as text for the interactive Lua. Reads tables raw, so that __tostring is the only code of
-- the user's that runs; an error in it becomes part of the text. The caller must interrupt a
-- __tostring that never ends.
local M = {}

-- Copies of Lua's functions: the user's code may replace the originals.
local concat, format, gsub, min, sort, sub = table.concat, string.format, string.gsub, math.min, table.sort, string.sub
local metatable, number_kind = debug.getmetatable, math.type
local next, pcall, rawget, rawlen, tostring, type = next, pcall, rawget, rawlen, tostring, type

local limit = 40 -- how many list entries of a table are shown, and how many other fields

-- A value as text, without its __tostring.
local function raw(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "nil" or kind == "boolean" then return value and "true" or value == nil and "nil" or "false" end
  return format(kind == "number" and "%.14g" or kind .. ": %p", value)
end

-- An error as part of a line.
local function reason(message)
  return sub(gsub(raw(message), "%s+", " "), 1, 200)
end

--- A value as text, by its __tostring if it has one.
-- @param value any
-- @return text
function M.word(value)
  local mt = metatable(value)
  if type(value) == "string" then return value end
  if type(mt) ~= "table" or rawget(mt, "__tostring") == nil then return tostring(value) end
  local ok, text = pcall(tostring, value)
  return ok and text or format("%s (its __tostring fails: %s)", raw(value), reason(text))
end

local function part(value)
  return type(value) == "string" and format("%q", value) or M.word(value)
end

-- {key as text, value} of the keys that are not in the list part, in alphabetical order.
local function fields(t, n)
  local list = {}
  for key, value in next, t do
    if not (number_kind(key) == "integer" and key >= 1 and key <= n) then list[#list + 1] = { M.word(key), value } end
  end
  sort(list, function(a, b) return a[1] < b[1] end)
  return list
end

--- A value as the interactive Lua prints it: as M.word, but tables with their fields, one level
-- deep.
-- @param value any
-- @return text
-- @usage show.text { 1, a = "b" } --> '{ 1, a = "b" }'
function M.text(value)
  local mt = metatable(value)
  if type(value) ~= "table" or (type(mt) == "table" and rawget(mt, "__tostring") ~= nil) then return M.word(value) end
  local parts, n = {}, rawlen(value)
  for i = 1, min(n, limit) do parts[i] = part(rawget(value, i)) end
  local others = fields(value, n)
  for i = 1, min(#others, limit) do parts[#parts + 1] = others[i][1] .. " = " .. part(others[i][2]) end
  if n + #others > #parts then parts[#parts + 1] = format("... (%d in all)", n + #others) end
  return "{ " .. concat(parts, ", ") .. " }"
end

return M
