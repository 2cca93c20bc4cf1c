--- Errors in user code: one line, with the position in the user's own code and what is accepted.
local M = {}

local library = debug.getinfo(1, "S").source:match("^(.*[/\\])misuse%.lua$")

--- Where the user's code called the library.
-- @return "file:line: ", as in Lua's own errors; "" when no file of the user's is on the stack
function M.where()
  for level = 2, math.huge do
    local info = debug.getinfo(level, "Sl")
    if not info then return "" end
    local foreign = info.source:sub(1, 1) == "@" and info.source:sub(1, #library) ~= library
    if foreign and info.currentline > 0 then return ("%s:%d: "):format(info.source:sub(2), info.currentline) end
  end
end

--- Raises a formatted message at the user's line.
-- @param format as in string.format
-- @param ... its arguments
function M.raise(format, ...)
  error(M.where() .. format:format(...), 0)
end

--- Calls f. Raises the engine's errors, which have no position, again with the user's line.
-- @param f the function
-- @param ... its arguments
-- @return what f returns
function M.call(f, ...)
  local results = table.pack(pcall(f, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  error(type(results[2]) == "string" and M.where() .. results[2] or results[2], 0)
end

--- Any value as text for a message. Never raises an error, whatever metatable the value has.
-- @param value any value, for example from a user's script
-- @return what tostring returns; for tables, functions and so on without __tostring "a table",
--   "a function"
function M.text(value)
  local kind, mt = type(value), debug.getmetatable(value)
  if kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" then return tostring(value) end
  if type(mt) == "table" and rawget(mt, "__tostring") ~= nil then
    local ok, text = pcall(tostring, value)
    return ok and text or ("a %s whose __tostring fails"):format(kind)
  end
  return "a " .. kind
end

local Usage = { __tostring = function(self) return self.message end }

--- Raises an error about how a command was called (exit status 2). tostring returns its message.
-- @param format as in string.format
-- @param ... its arguments
function M.usage(format, ...)
  error(setmetatable({ message = format:format(...) }, Usage), 0)
end

--- Whether an error object comes from M.usage.
-- @param e the error object
-- @return true or false
function M.is_usage(e)
  return getmetatable(e) == Usage
end

-- Edit distance: how many letters to change, remove, insert or swap with the next one.
local function distance(a, b)
  local before, row = nil, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local above = row
    row = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost)
      local swapped = before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j)
      if swapped then row[j] = math.min(row[j], before[j - 2] + 1) end
    end
    before = above
  end
  return row[#b]
end

--- A hint for a misspelt word.
-- @param word what the user wrote
-- @param list the accepted words
-- @return ' (did you mean "x"?)' or ""
function M.suggest(word, list)
  word = M.text(word)
  -- About a third of the letters may be wrong, but never all of them.
  local best, least = nil, math.min(math.max(1, #word // 3) + 1, #word)
  for _, candidate in ipairs(list) do
    local d = distance(word, candidate)
    if d < least then best, least = candidate, d end
  end
  return best and (' (did you mean "%s"?)'):format(best) or ""
end

--- The string keys of a table in alphabetical order.
-- @param t the table
-- @return list of names
function M.names(t)
  local names = {}
  for key in pairs(t) do
    if type(key) == "string" then names[#names + 1] = key end
  end
  table.sort(names)
  return names
end

--- Raises an error unless every named field of an options table is accepted.
-- @param what what the options are for, for messages
-- @param options the table
-- @param accepted list of names
function M.check_fields(what, options, accepted)
  for _, name in ipairs(M.names(options)) do
    local known = false
    for _, a in ipairs(accepted) do known = known or a == name end
    if not known then
      M.raise("%s: unknown option %s%s, accepted are %s", what, name, M.suggest(name, accepted), table.concat(accepted, ", "))
    end
  end
end

local function shown(value)
  return type(value) == "string" and ("%q"):format(value) or M.text(value)
end

--- Raises an error about an assignment to a read-only field.
-- @param what the field, for example "tensor.format"
-- @param value the value that was to be assigned
-- @param way how to change the field, in words; nil where it cannot be changed
function M.assigned(what, value, way)
  M.raise("%s = %s: cannot be assigned, %s", what, shown(value),
    way and "accepted are " .. way or "it is read-only")
end

--- A read-only view of a table and of the tables in it: assignments are errors.
-- @param what its name in messages
-- @param t the table
-- @param way how to change its fields, in words, or nil
-- @return the view
function M.read_only(what, t, way)
  local function field(key)
    return type(key) == "number" and ("%s[%d]"):format(what, key) or ("%s.%s"):format(what, tostring(key))
  end
  local function get(_, key)
    local value = t[key]
    if type(value) ~= "table" or getmetatable(value) ~= nil then return value end
    return M.read_only(field(key), value, way)
  end
  return setmetatable({}, {
    __index = get,
    __newindex = function(_, key, value) M.assigned(field(key), value, way) end,
    __len = function() return #t end,
    __pairs = function(self) return function(_, key) key = next(t, key) return key, get(self, key) end, self, nil end,
    accepted = M.names(t), -- for completion
  })
end

local hidden = {} -- an object keeps its values under this key, where no assignment reaches them

--- A class of objects that scripts see. To read an unknown field or to assign any is an error.
-- @param what the name of such an object in messages
-- @param methods table of functions
-- @param getters table of functions of the object, for fields computed on access
-- @param fields list of the names of plain fields; a field that an object lacks is nil
-- @param ways field -> how to change it, in words; nil where no field can be changed
-- @return a metatable
-- @usage
-- local mt = misuse.strict("group", {}, {}, { "index" })
-- local group = misuse.object(mt, { index = 3 })
function M.strict(what, methods, getters, fields, ways)
  local known, mt = {}, { __name = "mptl." .. what }
  for _, names in ipairs { M.names(methods), M.names(getters), fields } do
    for _, name in ipairs(names) do known[name] = true end
  end
  mt.accepted = M.names(known) -- also for completion
  local accepted = mt.accepted
  local function refuse(key)
    M.raise("%s has no field %s%s, it has %s", what, M.text(key), M.suggest(key, accepted),
      table.concat(accepted, ", "))
  end
  function mt.__index(self, key)
    if methods[key] then return methods[key] end
    if getters[key] then return getters[key](self) end
    local value = rawget(self, hidden)[key]
    if value ~= nil or known[key] then return value end -- nil: an optional field
    refuse(key)
  end
  function mt.__newindex(_, key, value)
    if not known[key] then refuse(key) end
    M.assigned(("%s.%s"):format(what, key), value, ways and ways[key])
  end
  return mt
end

--- An object of a class.
-- @param mt a class from M.strict
-- @param values table of its fields, and of what its methods store
-- @return the object
function M.object(mt, values)
  return setmetatable({ [hidden] = values }, mt)
end

--- The values of an object, for its own methods, which may change them.
-- @param object an object from M.object
-- @return the table
function M.values(object)
  return rawget(object, hidden)
end

return M
