--- Rounding of fractions of integers of any size, by Lua's integer arithmetic. It uses no floating point except for results, nor
-- any code of the engine. Large integers are lists of digits to the base 2^24, the least significant first.
local M = {}

local function trim(a)
  while #a > 0 and a[#a] == 0 do a[#a] = nil end
  return a
end

local function times(a, factor, plus)
  local r, carry = {}, plus or 0
  for i = 1, #a do
    carry = a[i] * factor + carry
    r[i], carry = carry & 0xffffff, carry >> 24
  end
  while carry > 0 do r[#r + 1], carry = carry & 0xffffff, carry >> 24 end
  return trim(r)
end

local function shifted(a, n)
  local r = {}
  for i = 1, n // 24 do r[i] = 0 end
  return table.move(times(a, 1 << n % 24), 1, #a + 1, #r + 1, r)
end

local function bits(a)
  local n, top = 24 * (#a - 1), a[#a]
  while top > 0 do n, top = n + 1, top >> 1 end
  return n
end

local function less(a, b)
  if #a ~= #b then return #a < #b end
  for i = #a, 1, -1 do
    if a[i] ~= b[i] then return a[i] < b[i] end
  end
  return false
end

local function minus(a, b)
  local r, borrow = {}, 0
  for i = 1, #a do
    local d = a[i] - (b[i] or 0) - borrow
    r[i], borrow = d & 0xffffff, d < 0 and 1 or 0
  end
  return trim(r)
end

-- The first n bits of a / b, for a below b; and the remainder.
local function digits(a, b, n)
  local q = 0
  for _ = 1, n do
    a, q = times(a, 2), q << 1
    if not less(a, b) then a, q = minus(a, b), q | 1 end
  end
  return q, a
end

--- A decimal as {negative =, over =, under =}: "-12.5e-3".
function M.decimal(text)
  local sign, whole, fraction, exponent = text:match "^([-+]?)(%d*)%.?(%d*)[eE]?([-+]?%d*)$"
  local over, under = {}, { 1 }
  for digit in (whole .. fraction):gmatch "%d" do over = times(over, 10, tonumber(digit)) end
  local power = (tonumber(exponent) or 0) - #fraction
  for _ = 1, power do over = times(over, 10) end
  for _ = 1, -power do under = times(under, 10) end
  return { negative = sign == "-", over = over, under = under }
end

--- A finite float as such a fraction.
function M.number(x)
  local negative, under = x < 0 or 1 / x < 0, { 1 }
  x = math.abs(x)
  local power = 0
  while x ~= 0 and x ~= math.floor(x) do x, power = x * 2, power - 1 end
  while x >= 2.0 ^ 53 do x, power = x / 2, power + 1 end
  x = math.tointeger(x)
  local over = trim { x & 0xffffff, x >> 24 & 0xffffff, x >> 48 }
  if power > 0 then over = shifted(over, power) else under = shifted(under, -power) end
  return { negative = negative, over = over, under = under }
end

-- By mode: whether a number between whole and whole + 1 units is rounded up; rest is 0, 1 (below half), 2 (half), 3.
local goes_up = {
  nearest_even = function(whole, rest) return rest == 3 or rest == 2 and whole % 2 == 1 end,
  nearest_away = function(_, rest) return rest >= 2 end,
  toward_zero = function() return false end,
  up = function(_, rest, negative) return rest > 0 and not negative end,
  down = function(_, rest, negative) return rest > 0 and negative end,
  stochastic = function(_, _, _, fraction, random) return math.ult(random, fraction) end,
}

--- Rounds a fraction.
-- @param x as decimal and number return it
-- @param f {m =, emin =, max =}
-- @param mode as the engine calls it
-- @param overflow "saturate" or "inf"
-- @param random 64 bits, for the stochastic mode
-- @return the result, and "overflow", "underflow" or nil
function M.round(x, f, mode, overflow, random)
  local sign = x.negative and -1.0 or 1.0
  if #x.over == 0 then return sign * 0.0 end
  local exponent = bits(x.over) - bits(x.under)
  local function at_least(e)
    return not less(shifted(x.over, math.max(-e, 0)), shifted(x.under, math.max(e, 0)))
  end
  if not at_least(exponent) then exponent = exponent - 1 end
  local y
  if exponent >= 130 then
    y = math.huge
  else
    local last = math.max(math.max(exponent, f.emin) - f.m, -149) -- the result must be a binary32 number, too
    local a, b = shifted(x.over, math.max(-last, 0)), shifted(x.under, math.max(last, 0))
    local whole, rest = 0, a
    if not less(a, b) then
      local n = bits(a) - bits(b) + 1
      whole, rest = digits(a, shifted(b, n), n)
      b = shifted(b, n)
    end
    local fraction, below = digits(rest, b, 64)
    local half = fraction < 0 and 2 or 0
    local more = (fraction << 1 ~= 0 or #below > 0) and 1 or 0
    y = (whole + (goes_up[mode](whole, half + more, x.negative, fraction, random) and 1 or 0)) * 2.0 ^ last
  end
  if y <= f.max then return sign * y, y == 0 and "underflow" or nil end
  if mode == "toward_zero" or mode == (x.negative and "up" or "down") then return sign * f.max end
  return sign * (overflow == "inf" and math.huge or f.max), "overflow"
end

return M
