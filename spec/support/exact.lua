--- Rounding in binary64, which is exact for all values of formats. It does not use bit patterns, nor any code of the engine.
-- Also converts binary32 patterns to numbers and back.
local M = {}

--- The number of a binary32 pattern.
function M.value(bits)
  return (("<f"):unpack(("<I4"):pack(bits)))
end

--- The pattern of a number that binary32 holds.
function M.bits(x)
  return (("<I4"):unpack(("<f"):pack(x)))
end

--- The values of FP(e,m,b), by its definition; the `reserved` highest codes are not finite values.
function M.format(e, m, b, reserved)
  local bias = 2 ^ (e - 1) - 1 + b
  local f = { e = e, m = m, b = b, emin = math.tointeger(1 - bias), codes = {}, bits = 1 + e + m }
  if f.bits > 16 then return f end
  for code = 0, 2 ^ (e + m) - 1 - (reserved or 0) do -- magnitudes, ascending
    local field, fraction = code // 2 ^ m, code % 2 ^ m
    local x = field > 0 and 2.0 ^ (field - bias) * (1 + fraction / 2 ^ m) or 2.0 ^ (1 - bias) * (fraction / 2 ^ m)
    if x >= 2.0 ^ 128 then break end
    f.codes[#f.codes + 1] = x
    f.max = x
  end
  return f
end

local function exponent(x)
  local n = 0
  while x >= 2 do x, n = x / 2, n + 1 end
  while x < 1 do x, n = x * 2, n - 1 end
  return n
end

local function even(n) return n % 2 == 0 end

-- By mode: a magnitude in units of the spacing, >= 0 -> an integer.
local to_integer = {
  toward_zero = function(s) return math.floor(s) end,
  nearest_away = function(s) return math.floor(s) + (s - math.floor(s) >= 0.5 and 1 or 0) end,
  nearest_even = function(s)
    local whole, rest = math.floor(s), s - math.floor(s)
    return whole + ((rest > 0.5 or (rest == 0.5 and not even(whole))) and 1 or 0)
  end,
  up = function(s, negative) return negative and math.floor(s) or math.ceil(s) end,
  down = function(s, negative) return negative and math.ceil(s) or math.floor(s) end,
}

--- Rounds x to format f.
-- @return the result, and whether it overflowed
function M.round(x, f, mode, overflow)
  local size, negative = math.abs(x), x < 0 or 1 / x < 0
  local sign = negative and -1.0 or 1.0
  local over = overflow == "inf" and math.huge or f.max
  if x ~= x then return x, false end
  if size == math.huge then return sign * over, false end
  if size == 0 then return x, false end
  local spacing = 2.0 ^ (math.max(exponent(size), f.emin) - f.m)
  local y = to_integer[mode](size / spacing, negative) * spacing
  if y <= f.max then return sign * y, false end
  if mode == "toward_zero" or (mode == "up" and negative) or (mode == "down" and not negative) then return sign * f.max, false end
  return sign * over, true
end

return M
