--- Completion of names in the interactive Lua: globals, fields, methods.
local M = {}

-- Names that can follow a value: fields of tables, methods of objects.
local function names_of(value, found)
  if type(value) == "table" then
    for key in pairs(value) do
      if type(key) == "string" then found[key] = true end
    end
    for _, part in ipairs(rawget(value, "parts") or {}) do found[part] = true end -- loaded when first used
  end
  local mt = getmetatable(value)
  if type(mt) ~= "table" then return end
  for _, name in ipairs(rawget(mt, "accepted") or {}) do found[name] = true end
  if type(mt.__index) == "table" and mt.__index ~= value then names_of(mt.__index, found) end
end

--- Candidates for the word before the cursor.
-- @param env table of globals
-- @param word a chain of names such as "mptl.prec" or "graph:op"
-- @return sorted list of whole words
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
  names_of(value, found)
  for name in pairs(found) do
    if name:sub(1, #prefix) == prefix and (prefix ~= "" or name:sub(1, 1) ~= "_") then list[#list + 1] = chain .. name end
  end
  table.sort(list)
  return list
end

return M
