local format = require "mptl.format"

--- mptl.round(x, format, options): rounds a number, a list or a tensor to a format; see
-- mptl.format.
-- @param x a number, a list of numbers or a tensor
-- @param name name of the format
-- @param options {mode =, overflow =, seed =, stream =, step =}
-- @return the rounded values, of the same type as x; statistics
-- @usage mptl.round(1.06, "FP(4,3,4)") --> 1.0, { elements = 1, ... }
return function(x, name, options)
  return format(name):round(x, options)
end
