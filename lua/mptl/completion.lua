--- Completion of names in the interactive Lua: globals, fields, methods.
local M = {}

local function add_list(list, found)
  if type(list) ~= "table" then return end
  for i = 1, rawlen(list) do
    local name = rawget(list, i)
    if type(name) == "string" then found[name] = true end
  end
end

-- Names that can follow a value: fields of tables, methods of objects. Reads values raw, so that no
-- code of the user's runs.
local function names_of(value, found, depth)
  if depth > 16 then return end -- two metatables may be each other's __index
  if type(value) == "table" then
    for key in next, value do
      if type(key) == "string" then found[key] = true end
    end
    add_list(rawget(value, "parts"), found) -- loaded when first used
  end
  local mt = debug.getmetatable(value)
  if type(mt) ~= "table" then return end
  add_list(rawget(mt, "accepted"), found)
  if type(rawget(mt, "__index")) == "table" then names_of(rawget(mt, "__index"), found, depth + 1) end
end

--- Candidates for the word before the cursor.
-- @param env table of globals
-- @param word a chain of names such as "mptl.prec" or "graph:op", of which the last is incomplete
-- @return sorted list of complete words
-- @usage completion.candidates({ mptl = { nn = {}, name = "" } }, "mptl.n") --> { "mptl.name", "mptl.nn" }
function M.candidates(env, word)
  local chain, prefix = word:match("^(.*[%.:])([%a_]?[%w_]*)$")
  if not chain then chain, prefix = "", word end
  local value = env
  for name in chain:gmatch("[%a_][%w_]*") do
    local ok, field = pcall(function() return value[name] end)
    if not ok or field == nil then return {} end
    value = field
  end
  local found, list = {}, {}
  names_of(value, found, 0)
  for name in pairs(found) do
    if name:sub(1, #prefix) == prefix and (prefix ~= "" or name:sub(1, 1) ~= "_") then list[#list + 1] = chain .. name end
  end
  table.sort(list)
  return list
end

return M
