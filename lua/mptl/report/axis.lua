--- Axes: round ticks with labels, and the position of a value on the axis, from 0 to 1.
local text = require "mptl.report.text"

local M = {}

local function decimals(spacing)
  return math.max(0, math.ceil(-math.log(spacing, 10) - 1e-9))
end

-- Widens an axis whose ends are equal, within the limits.
local function widened(low, high, options)
  if high - low >= 1e-9 * math.max(math.abs(low), math.abs(high), 1e-30) then return low, high end
  local margin = options.integer and 1 or math.max(math.abs(low) * 0.02, 1e-3)
  local least, most = options.least, options.most
  low, high = low - margin, high + margin
  if least and least < high then low = math.max(low, least) end
  if most and most > low then high = math.min(high, most) end
  return low, high
end

-- The distance of ticks: 1, 2 or 5 times a power of ten, for about `ticks` of them.
local function tick_spacing(low, high, ticks)
  local rough = (high - low) / ticks
  local unit = 10.0 ^ math.floor(math.log(rough, 10))
  for _, factor in ipairs { 1, 2, 5 } do
    if unit * factor >= rough * 0.999 then return unit * factor end
  end
  return unit * 10
end

--- A linear axis.
-- @param low, high the values to show
-- @param options {ticks = about how many (5), integer = whole ticks only, tight = whether the axis
--   ends at low and high instead of at ticks, least =, most = limits of an axis that is widened
--   since low equals high, label = function (value) -> text}
-- @return {low =, high =, ticks = list of values, labels = list of text,
--   at = function (value) -> 0 to 1}
function M.linear(low, high, options)
  options = options or {}
  low, high = widened(low, high, options)
  local spacing = tick_spacing(low, high, options.ticks or 5)
  if options.integer then spacing = math.max(1, math.floor(spacing + 0.5)) end
  local first, last = math.ceil(low / spacing - 1e-6), math.floor(high / spacing + 1e-6)
  if not options.tight then
    first, last = math.floor(low / spacing + 1e-6), math.ceil(high / spacing - 1e-6)
    low, high = first * spacing, last * spacing
  end
  local axis = { low = low, high = high, ticks = {}, labels = {} }
  local label = options.label or function(v) return ("%%.%df"):format(decimals(spacing)):format(v) end
  for i = first, last do
    axis.ticks[#axis.ticks + 1] = i * spacing
    axis.labels[#axis.labels + 1] = label(i * spacing + 0.0)
  end
  function axis.at(value) return (value - low) / (high - low) end
  return axis
end

--- A logarithmic axis, for values above 0.
-- @param low, high the values to show
-- @return as in M.linear
function M.logarithmic(low, high)
  local function log(v) return math.log(v, 10) end
  local first, last = math.floor(log(low) + 1e-6), math.ceil(log(high) - 1e-6)
  if last == first then last = first + 1 end
  local spacing = math.max(1, math.ceil((last - first) / 6)) -- of ticks, in decades
  local axis = { low = 10.0 ^ first, high = 10.0 ^ last, ticks = {}, labels = {} }
  for e = first, last do
    for _, factor in ipairs(last - first <= 2 and { 1, 2, 5 } or { 1 }) do
      local v = factor * 10.0 ^ e
      if (e - first) % spacing == 0 and v <= axis.high * 1.001 then
        axis.ticks[#axis.ticks + 1] = v
        axis.labels[#axis.labels + 1] = (e < -4 or e > 4) and text.power(factor == 1 and "10" or factor .. "·10", e)
          or text.short(v)
      end
    end
  end
  function axis.at(value) return (log(value) - first) / (last - first) end
  return axis
end

--- A logarithmic axis when all values are above 0 and span more than two decades, else a linear
-- one.
-- @param low, high the values to show
-- @param options as in M.linear
-- @return as in M.linear
function M.fitting(low, high, options)
  if low > 0 and high / low > 100 then return M.logarithmic(low, high) end
  return M.linear(low, high, options)
end

return M
