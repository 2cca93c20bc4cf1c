--- Axes: round ticks, and where a value lies between 0 and 1.
local text = require "mptl.report.text"

local M = {}

local function decimals(step)
  return math.max(0, math.ceil(-math.log(step, 10) - 1e-9))
end

--- A linear axis.
-- @param low, high the values to show
-- @param options {ticks = about how many (5), integer = only whole ticks, tight = the axis ends at low and high, not at ticks,
-- floor =, ceiling = limits of a widened axis, label = function (value) -> text}
-- @return {low =, high =, ticks = list of values, labels = list of text, at = function (value) -> 0 to 1}
function M.linear(low, high, options)
  options = options or {}
  if high - low < 1e-9 * math.max(math.abs(low), math.abs(high), 1e-30) then
    local margin = options.integer and 1 or math.max(math.abs(low) * 0.02, 1e-3)
    local floor, ceiling = options.floor, options.ceiling
    low, high = low - margin, high + margin
    if floor and floor < high then low = math.max(low, floor) end
    if ceiling and ceiling > low then high = math.min(high, ceiling) end
  end
  local rough = (high - low) / (options.ticks or 5)
  local unit = 10.0 ^ math.floor(math.log(rough, 10))
  local step = unit * 10
  for _, factor in ipairs { 1, 2, 5 } do
    if unit * factor >= rough * 0.999 then
      step = unit * factor
      break
    end
  end
  if options.integer then step = math.max(1, math.floor(step + 0.5)) end
  local first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
  if not options.tight then
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    low, high = first * step, last * step
  end
  local axis = { low = low, high = high, ticks = {}, labels = {} }
  local label = options.label or function(v) return ("%%.%df"):format(decimals(step)):format(v) end
  for i = first, last do
    axis.ticks[#axis.ticks + 1] = i * step
    axis.labels[#axis.labels + 1] = label(i * step + 0.0)
  end
  function axis.at(value) return (value - low) / (high - low) end
  return axis
end

--- A logarithmic axis, for values above 0.
-- @param low, high the values to show
-- @return as M.linear
function M.logarithmic(low, high)
  local function log(v) return math.log(v, 10) end
  local first, last = math.floor(log(low) + 1e-6), math.ceil(log(high) - 1e-6)
  if last == first then last = first + 1 end
  local stride = math.max(1, math.ceil((last - first) / 6))
  local axis = { low = 10.0 ^ first, high = 10.0 ^ last, ticks = {}, labels = {} }
  for e = first, last do
    for _, factor in ipairs(last - first <= 2 and { 1, 2, 5 } or { 1 }) do
      local v = factor * 10.0 ^ e
      if (e - first) % stride == 0 and v <= axis.high * 1.001 then
        axis.ticks[#axis.ticks + 1] = v
        axis.labels[#axis.labels + 1] = (e < -4 or e > 4) and text.power(factor == 1 and "10" or factor .. "·10", e)
          or text.short(v)
      end
    end
  end
  function axis.at(value) return (log(value) - first) / (last - first) end
  return axis
end

--- Linear or logarithmic, whichever shows the values: logarithmic when they are all above 0 and span more than two decades.
-- @param low, high the values to show
-- @param options as M.linear
-- @return as M.linear
function M.fitting(low, high, options)
  if low > 0 and high / low > 100 then return M.logarithmic(low, high) end
  return M.linear(low, high, options)
end

return M
