--- JSON through dkjson, with the fields of an object in a given order.
local dkjson = require "dkjson"

local M = { null = dkjson.null }

--- A table whose fields are written in this order (others follow).
-- @param order list of field names
-- @param fields the table
-- @return the table
-- @usage json.encode(json.object({ "epoch", "loss" }, { loss = 1.5, epoch = 3 })) --> {"epoch":3,"loss":1.5}
function M.object(order, fields)
  return setmetatable(fields, { __jsontype = "object", __jsonorder = order })
end

--- A table that is written as a list even when it is empty.
-- @param list the table
-- @return the table
function M.array(list)
  return setmetatable(list, { __jsontype = "array" })
end

--- Text of a value. Infinities and NaN, which JSON does not have, become null.
-- @param value the value
-- @param options {indent = true for several lines}
-- @return a string
function M.encode(value, options)
  return dkjson.encode(value, options)
end

--- The value of a text.
-- @param text a string
-- @return the value (null as nil), or nil and a message with the place of the mistake
function M.decode(text)
  local value, place, message = dkjson.decode(text, 1, nil)
  if message then return nil, ("%s at byte %d"):format(message, place) end
  return value
end

return M
