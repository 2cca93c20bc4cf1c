--- Heat maps of what a run recorded about its tensors: overflow and underflow over time, exponents,
-- gradient errors by parameter.
local core = require "mptl.core"
local heat = require "mptl.report.heat"
local text = require "mptl.report.text"

local M = {}

local most_rows, most_exponent_rows, most_columns = 40, 100, 120

--- Roles of tensors, in the order of drawings.
M.roles = { "v", "dv", "theta", "dtheta" }

local share_limits = { 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1 }
local share_labels = { "≤ 0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %" }
local error_limits = { 0.01, 0.03, 0.1, 0.3, 1, math.huge }
local error_labels = { "≤ 0.01", "0.03", "0.1", "0.3", "1", "more" }

-- The rows with the largest `worst`, in their old order; and in words, how many were left out.
local function worst_rows(rows, what)
  if #rows <= most_rows then return rows, "" end
  local order = {}
  for i, r in ipairs(rows) do order[i] = { index = i, worst = r.worst } end
  table.sort(order, function(a, b) return a.worst > b.worst or (a.worst == b.worst and a.index < b.index) end)
  local indices, kept = {}, {}
  for i = 1, most_rows do indices[i] = order[i].index end
  table.sort(indices)
  for i, index in ipairs(indices) do kept[i] = rows[index] end
  return kept, (" (the %d worst of %d %s)"):format(most_rows, #rows, what)
end

local function name(t)
  return t.operator .. " " .. t.role
end

-- A row of shares by step. Where several steps share a column, it shows their largest value.
local function share_row(run, t, field, columns)
  local steps, cells, worst, worst_step = run.tensors.steps, {}, 0, nil
  for i, step in ipairs(steps) do
    local p, column = t.points[step], math.ceil(i * columns / #steps)
    if p then
      cells[column] = math.max(cells[column] or 0, p[field])
      if p[field] > worst then worst, worst_step = p[field], step end
    end
  end
  if worst == 0 then return nil end
  return {
    label = name(t), cells = cells, worst = worst,
    title = ("%s, %s: at most %s, at step %d"):format(name(t), t.format or "?", text.percent(worst), worst_step),
  }
end

--- Draws a share of the elements, by tensor and time.
-- @param run a run with tensors
-- @param field "overflow", "underflow" or "strange" (infinite or NaN before rounding)
-- @param title title of the drawing
-- @return the drawing; nil when it is 0 everywhere
function M.share(run, field, title)
  local steps, rows, columns = run.tensors.steps, {}, {}
  local count = math.min(#steps, most_columns)
  for _, t in ipairs(run.tensors.list) do rows[#rows + 1] = share_row(run, t, field, count) end
  if #rows == 0 then return nil end
  for column = 1, count do columns[column] = tostring(steps[math.max(1, (column - 1) * #steps // count + 1)]) end
  local shown, left_out = worst_rows(rows, "tensors in which there is any")
  return heat.draw {
    title = title, subtitle = "share of the tensor's elements" .. left_out, x_label = "step", columns = columns, rows = shown,
    limits = share_limits, limit_labels = share_labels,
  }
end

-- The exponents of a format's smallest and largest positive value; nil for an unknown format.
local function format_range(format)
  local ok, f = pcall(core.format, format or "")
  if not ok or not f.max or f.max == math.huge then return nil end
  return math.floor(math.log(f.min_subnormal, 2) + 1e-9), math.floor(math.log(f.max, 2) + 1e-9)
end

local function exponent_row(t, first)
  local e, cells, total, largest = t.exponents, {}, 0, 0
  for _, n in ipairs(e.counts) do total = total + n end
  if total <= 0 then return nil end
  for i, n in ipairs(e.counts) do
    cells[e.first + i - first] = n / total
    largest = math.max(largest, n / total)
  end
  local low, high = format_range(t.format)
  return {
    label = t.operator, cells = cells, from = low and low - first, to = high and high - first + 1,
    title = ("%s, %s, step %d"):format(name(t), t.format or "?", t.exponents_step),
  }
end

--- Draws the values' binary exponents, by operator, of the last step that recorded them. Marks show
-- the range of the format.
-- @param run a run with tensors
-- @param role "v", "dv", "theta" or "dtheta"
-- @return the drawing; nil when none were recorded
function M.exponents(run, role)
  local list = {}
  for _, t in ipairs(run.tensors.list) do
    if t.role == role and t.exponents then list[#list + 1] = t end
  end
  local first, last, rows, columns = math.huge, -math.huge, {}, {}
  for _, t in ipairs(list) do
    for i, n in ipairs(t.exponents.counts) do
      if n > 0 then first, last = math.min(first, t.exponents.first + i - 1), math.max(last, t.exponents.first + i - 1) end
    end
  end
  if first > last or last - first > 1000 then return nil end
  for _, t in ipairs(list) do rows[#rows + 1] = exponent_row(t, first) end
  for e = first, last do columns[#columns + 1] = e % 4 == 0 and text.power("2", e) or "" end
  local shown, left_out = rows, ""
  if #rows > most_exponent_rows then
    shown = table.move(rows, 1, most_exponent_rows, 1, {})
    left_out = (" (the first %d of %d)"):format(most_exponent_rows, #rows)
  end
  return heat.draw {
    title = "Exponents of " .. role, subtitle = "share of the values; strokes bound the format" .. left_out,
    x_label = "binary exponent", columns = columns, rows = shown, limits = share_limits, limit_labels = share_labels,
  }
end

--- Draws the relative gradient error, by parameter and epoch.
-- @param run a run with gradient_error
-- @param title title of the drawing
-- @return the drawing; nil when no parameters were recorded
function M.gradient_error(run, title)
  local rows, by_name, columns = {}, {}, {}
  for i, e in ipairs(run.gradient_error) do
    columns[i] = tostring(e.epoch)
    for _, p in ipairs(e.parameters) do
      local r = by_name[p.name]
      if not r then
        r = { label = p.name, cells = {}, worst = 0 }
        by_name[p.name], rows[#rows + 1] = r, r
      end
      local value = p.gradient.relative
      r.cells[i] = value
      r.worst = math.max(r.worst, value or 0)
      r.title = ("%s: %.3g in epoch %d, at most %.3g"):format(p.name, value or 0, e.epoch, r.worst)
    end
  end
  if #rows == 0 then return nil end
  local shown, left_out = worst_rows(rows, "parameters")
  return heat.draw {
    title = title, subtitle = "relative error of the gradient, |g - g32| / |g32|" .. left_out, x_label = "epoch",
    columns = columns, rows = shown, limits = error_limits, limit_labels = error_labels,
  }
end

return M
