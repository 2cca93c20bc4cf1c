--- Number formats: their properties, and rounding to them.
-- @usage
-- local f = mptl.format "FP(4,3,4)"
-- f.max                     --> 30.0
-- f:round { 1.06, 100 }     --> { 1.0, 30.0 }, statistics
-- f:encode { 1 }            --> "\x58"
-- #f:list()                 --> 255
local core = require "mptl.core"
local misuse = require "mptl.misuse"

local M = {}

local methods = {}

local function list_of(x)
  return type(x) == "number" and { x } or x
end

--- Rounds values to the format.
-- @param x a number, a list of numbers or a tensor
-- @param options `mode` (one of M.modes, default nearest_even), `overflow` ("saturate", the
--   default, or "inf"); for the stochastic mode `seed`, `stream`, `step` and `index` (of the first
--   element)
-- @return the rounded values, of the same type as x
-- @return statistics: elements, underflow, overflow, inf_in, nan_in, max_abs, format
function methods:round(x, options)
  local y, stats = misuse.call(core.round, list_of(x), self.name, options)
  if type(x) == "number" then return y[1], stats end
  return y, stats
end

--- Rounds values and encodes them: 1, 2 or 4 bytes each, little-endian.
-- @param x as in round
-- @param options as in round
-- @return a string of codes
-- @return statistics, as in round
function methods:encode(x, options)
  return misuse.call(core.encode, list_of(x), self.name, options)
end

--- The values of codes.
-- @param codes a string from encode
-- @return list of numbers
function methods:decode(codes)
  return misuse.call(core.decode, codes, self.name)
end

--- All finite values of the format, which must have at most 16 bits, in ascending order; zero once.
-- @return list of numbers
function methods:list()
  if self.bits > 16 then misuse.raise("list: format %s has %d bits, accepted are formats of up to 16", self.name, self.bits) end
  local codes, pack = {}, self.code_size == 1 and "<I1" or "<I2"
  for code = 0, self.max_code do codes[#codes + 1] = pack:pack(code) end
  local up, all = self:decode(table.concat(codes)), {}
  for i = #up, 2, -1 do all[#all + 1] = -up[i] end
  table.move(up, 1, #up, #all + 1, all)
  return all
end

--- The format that FP(e,m,auto) becomes for values with this largest magnitude; other formats do
-- not change.
-- @param largest a number
-- @return a format
function methods:fit(largest)
  return M.parse(core.format_fit(self.name, largest))
end

local mt = misuse.strict("format", methods, {}, {
  "name", "e", "m", "b", "bits", "max", "min_normal", "min_subnormal", "epsilon", "has_infinity", "has_nan", "values", "max_code",
  "code_size",
})

function mt:__tostring() return self.name end

function mt.__eq(a, b) return a.name == b.name end

--- A format by its name.
-- @param name fp32, tf32, bf16, fp16, fp8_e4m3fn, fp8_e5m2, FP(e,m,b) or FP(e,m,auto)
-- @return an object with the methods above and the fields name, e, m, b, bits, max, min_normal,
--   min_subnormal, epsilon, has_infinity, has_nan, values (number of finite values), max_code,
--   code_size
function M.parse(name)
  return misuse.object(mt, misuse.call(core.format, tostring(name)))
end

--- The named formats.
M.names = core.formats()

--- The rounding modes.
M.modes = core.rounding_modes()

return setmetatable(M, { __call = function(_, name) return M.parse(name) end })
