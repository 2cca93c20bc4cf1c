--- Symbolic values: a network computes with them while its graph is recorded. A value stands for a
-- batch of samples; value.shape is the shape of one sample: {c, h, w} or {features}.
local misuse = require "mptl.misuse"

local Value = {}
Value.__index = Value

--- Makes a value, for the recorder.
-- @param recorder the recorder
-- @param id the engine's number of the value
-- @param kind kind of the operator that computes it
-- @return the value
function Value.new(recorder, id, kind)
  return setmetatable({ recorder = recorder, id = id, kind = kind, shape = recorder.graph:shape(id) }, Value)
end

--- Whether a Lua value is a symbolic value.
-- @param x any Lua value
-- @return true or false
function Value.is(x)
  return getmetatable(x) == Value
end

--- Raises an error unless x is a symbolic value.
-- @param what name of the caller, for messages
-- @param x any Lua value
-- @return x
function Value.check(what, x)
  if Value.is(x) then return x end
  misuse.raise("%s: called with %s, must be a symbolic value (the x that a model or a forward function is given)", what,
    type(x) == "table" and tostring(x) or type(x))
end

--- x + y, element by element. The shapes must be equal.
function Value.__add(x, y)
  Value.check("add", x)
  Value.check("add", y)
  return x.recorder:call("add", { x, y })
end

--- x * y, element by element. The shapes must be equal.
function Value.__mul(x, y)
  Value.check("mul", x)
  Value.check("mul", y)
  return x.recorder:call("mul", { x, y })
end

function Value:__tostring()
  return ("value %s (%s)"):format(table.concat(self.shape, "x"), self.kind)
end

return Value
