--- `mptl.round(x, format, options)`: rounds a number, a list or a tensor to a format; see mptl.format.
-- @usage mptl.round(1.06, "FP(4,3,4)") --> 1.0, { elements = 1, ... }
local format = require "mptl.format"

return function(x, name, options)
  return format(name):round(x, options)
end
