--- JSON by dkjson, with the fields of an object in a given order.
local dkjson = require "dkjson"

local M = { null = dkjson.null }

--- A table whose fields are written in a given order. Name all fields: others follow in random
-- order.
-- @param order list of field names
-- @param fields the table
-- @return the table
-- @usage json.encode(json.object({ "epoch", "loss" }, { loss = 1.5, epoch = 3 })) --> {"epoch":3,"loss":1.5}
function M.object(order, fields)
  return setmetatable(fields, { __jsontype = "object", __jsonorder = order })
end

--- A table that is written as a list, even when it is empty.
-- @param list the table
-- @return the table
function M.array(list)
  return setmetatable(list, { __jsontype = "array" })
end

-- The names of all fields in a value, sorted: the order of objects that json.object did not make.
local function sorted_names(value)
  local seen, names = {}, {}
  local function visit(v)
    if type(v) ~= "table" then return end
    for key, field in pairs(v) do
      if type(key) == "string" and not seen[key] then
        seen[key] = true
        names[#names + 1] = key
      end
      visit(field)
    end
  end
  visit(value)
  table.sort(names)
  return names
end

--- The text of a value; equal values have equal texts. JSON has no infinity and no NaN: they become
-- null.
-- @param value the value
-- @param options {indent = true for several lines}
-- @return a string
function M.encode(value, options)
  return dkjson.encode(value, { indent = options and options.indent, keyorder = sorted_names(value) })
end

--- The value of a text.
-- @param text a string
-- @return the value (null as nil); or nil and a message with the position of the mistake
function M.decode(text)
  local value, place, message = dkjson.decode(text, 1, nil)
  if message then return nil, ("%s at byte %d"):format(message, place) end
  return value
end

return M
