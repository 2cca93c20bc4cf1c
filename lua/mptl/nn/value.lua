--- Symbolic values: what a model computes on while its graph is recorded.
-- A value stands for a batch of tensors of one shape; `value.shape` is that of one sample: {c, h, w} or {features}.
local misuse = require "mptl.misuse"

local Value = {}
Value.__index = Value

--- A value of a recording (for the recorder).
-- @param recorder the recording
-- @param id the engine's number of the value
-- @param kind of the operator that made it
-- @return the value
function Value.new(recorder, id, kind)
  return setmetatable({ recorder = recorder, id = id, kind = kind, shape = recorder.graph:shape(id) }, Value)
end

--- Whether a thing is a symbolic value.
-- @param x the thing
-- @return true or false
function Value.is(x)
  return getmetatable(x) == Value
end

--- Raises unless x is a symbolic value.
-- @param what the caller
-- @param x the thing
-- @return x
function Value.check(what, x)
  if Value.is(x) then return x end
  misuse.raise("%s: called with %s, must be a symbolic value (the x that a model or a forward function is given)", what,
    type(x) == "table" and tostring(x) or type(x))
end

--- x + y: element by element, equal shapes.
function Value.__add(x, y)
  Value.check("add", x)
  Value.check("add", y)
  return x.recorder:call("add", { x, y })
end

--- x * y: element by element, equal shapes.
function Value.__mul(x, y)
  Value.check("mul", x)
  Value.check("mul", y)
  return x.recorder:call("mul", { x, y })
end

function Value:__tostring()
  return ("value %s (%s)"):format(table.concat(self.shape, "x"), self.kind)
end

return Value
