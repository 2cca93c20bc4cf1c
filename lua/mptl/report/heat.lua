--- Heat maps as SVG: a row per tensor, a column per step, epoch or exponent, six levels of colour.
local text = require "mptl.report.text"

local M = {}

local font, row, whole_width = 12, 15, 590

-- The level of a value: 0 for none, else the number of the first limit that it does not exceed.
local function level(value, limits)
  if not value or value <= 0 then return 0 end
  for i, limit in ipairs(limits) do
    if value <= limit * (1 + 1e-9) then return i end
  end
  return #limits
end

-- Draws the cells of a row; neighbours of the same level are one rectangle.
local function draw_row(put, cells, limits, area, y)
  local first = 1
  while first <= area.columns do
    local l, last = level(cells[first], limits), first
    while last < area.columns and level(cells[last + 1], limits) == l do last = last + 1 end
    if l > 0 then
      put('<rect class="c%d" x="%.1f" y="%d" width="%.1f" height="%d"/>', l, area.left + (first - 1) * area.cell, y + 1,
        (last - first + 1) * area.cell, row - 2)
    end
    first = last + 1
  end
end

-- Draws as many of the labels that are not empty as there is room for, evenly spaced.
local function draw_column_labels(put, labels, area, y)
  local columns, widest = {}, 0
  for i, label in ipairs(labels) do
    if label ~= "" then
      columns[#columns + 1] = i
      widest = math.max(widest, text.width(label, font) + 10)
    end
  end
  local spacing = #columns > 1 and (columns[2] - columns[1]) * area.cell or widest
  for k = 1, #columns, math.max(1, math.ceil(widest / spacing)) do
    put('<text class="t" x="%.1f" y="%d" text-anchor="middle">%s</text>', area.left + (columns[k] - 0.5) * area.cell, y,
      text.escape(labels[columns[k]]))
  end
end

-- Draws the scale: a box of each colour with its limit.
local function draw_scale(put, map, x, y)
  for i, label in ipairs(map.limit_labels) do
    put('<rect class="c%d" x="%.1f" y="%d" width="16" height="12"/>', i, x, y - 10)
    put('<text class="t" x="%.1f" y="%d">%s</text>', x + 21, y, text.escape(label))
    x = x + 36 + text.width(label, font)
  end
end

-- Draws a mark at the left edge of a column, numbered from 0; none for nil or beyond the map.
local function draw_mark(put, column, area, y)
  if not column or column < 0 or column > area.columns then return end
  local x = area.left + column * area.cell
  put('<line class="mark" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>', x, y + 1, x, y + row - 1)
end

--- Draws a heat map.
-- @param map {title =, subtitle =, x_label =, columns = list of labels, rows = list of {label =,
--   title =, cells = list of values (nil or 0: empty), from =, to = columns with a mark at their
--   edge (nil: none)}, limits = six ascending values, limit_labels = list of text}
-- @return the drawing
function M.draw(map)
  local out, labels, left = {}, {}, 60
  local function put(format, ...) out[#out + 1] = select("#", ...) > 0 and format:format(...) or format end
  for i, r in ipairs(map.rows) do
    labels[i] = text.shorten(r.label, 40)
    left = math.max(left, text.width(labels[i], font) + 18)
  end
  local columns = #map.columns
  local area = { left = left, columns = columns, cell = math.min(24, math.max(whole_width - left - 18, 200) / columns) }
  local right, top = left + columns * area.cell, 50
  local bottom = top + #map.rows * row
  local width = math.ceil(math.max(right + 18, 560))
  put('<text class="t h" x="10" y="18">%s</text><text class="t q" x="10" y="36">%s</text>', text.escape(map.title),
    text.escape(map.subtitle))
  for i, r in ipairs(map.rows) do
    local y = top + (i - 1) * row
    put('<g><title>%s</title>', text.escape(r.title or r.label))
    put('<text class="t" x="%.1f" y="%d" text-anchor="end">%s</text>', left - 8, y + row - 4, text.escape(labels[i]))
    draw_row(put, r.cells, map.limits, area, y)
    draw_mark(put, r.from, area, y)
    draw_mark(put, r.to, area, y)
    put "</g>"
  end
  put('<rect class="frame" x="%.1f" y="%d" width="%.1f" height="%d"/>', left, top, right - left, bottom - top)
  draw_column_labels(put, map.columns, area, bottom + 17)
  put('<text class="t q" x="%.1f" y="%d" text-anchor="middle">%s</text>', (left + right) / 2, bottom + 34,
    text.escape(map.x_label))
  draw_scale(put, map, 14, bottom + 58)
  return { title = ("%s: %s"):format(map.title, map.subtitle), width = width, height = bottom + 68, body = table.concat(out) }
end

return M
