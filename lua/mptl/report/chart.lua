--- Charts as SVG: curves and points between two axes, with a legend below. Colours are CSS classes
-- (style.lua).
--
-- A drawing is {title = text, width =, height =, body = SVG elements}. M.svg makes a picture of one
-- drawing, picture.lua of several.
local text = require "mptl.report.text"

local M = { width = 560 }

local font = 12
local right, title_height, row = 18, 44, 19
local plot_height = 240

-- A function that draws a polygon around (x, y), from its corners for radius 1.
local function polygon(...)
  local corners = { ... }
  return function(x, y, r)
    local points = {}
    for i = 1, #corners, 2 do
      points[#points + 1] = ("%.1f,%.1f"):format(x + r * corners[i], y + r * corners[i + 1])
    end
    return ('<polygon class="m" points="%s"/>'):format(table.concat(points, " "))
  end
end

local markers = {
  circle = function(x, y, r) return ('<circle class="m" cx="%.1f" cy="%.1f" r="%.1f"/>'):format(x, y, r) end,
  square = polygon(-0.9, -0.9, 0.9, -0.9, 0.9, 0.9, -0.9, 0.9),
  up = polygon(0, -1.15, 1.1, 0.85, -1.1, 0.85),
  down = polygon(0, 1.15, 1.1, -0.85, -1.1, -0.85),
  diamond = polygon(0, -1.3, 1.1, 0, 0, 1.3, -1.1, 0),
  cross = polygon(-1.1, -0.7, -0.7, -1.1, 0, -0.4, 0.7, -1.1, 1.1, -0.7, 0.4, 0, 1.1, 0.7, 0.7, 1.1, 0, 0.4, -0.7, 1.1, -1.1,
    0.7, -0.4, 0),
  plus = polygon(-0.35, -1.2, 0.35, -1.2, 0.35, -0.35, 1.2, -0.35, 1.2, 0.35, 0.35, 0.35, 0.35, 1.2, -0.35, 1.2, -0.35, 0.35,
    -1.2, 0.35, -1.2, -0.35, -0.35, -0.35),
  bar = polygon(-1.2, -0.6, 1.2, -0.6, 1.2, 0.6, -1.2, 0.6),
}

--- Names of the markers, in the order in which curves take them.
M.markers = { "circle", "square", "up", "diamond", "down", "cross", "plus", "bar" }

local function marker(name, x, y, r)
  return (markers[name] or markers.circle)(x, y, r)
end

-- Appends grid, tick labels and axis titles.
local function draw_axes(put, chart, area)
  local x, y = chart.x, chart.y
  for i, v in ipairs(y.ticks) do
    local at = area.y(v)
    put('<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>', area.left, at, area.right, at)
    put('<text class="t" x="%.1f" y="%.1f" text-anchor="end">%s</text>', area.left - 7, at + 4, text.escape(y.labels[i]))
  end
  put('<line class="axis" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>', area.left, area.bottom, area.right, area.bottom)
  for i, v in ipairs(x.ticks) do
    local at = area.x(v)
    put('<line class="axis" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>', at, area.bottom, at, area.bottom + 4)
    put('<text class="t" x="%.1f" y="%.1f" text-anchor="middle">%s</text>', at, area.bottom + 17, text.escape(x.labels[i]))
  end
  put('<text class="t q" x="%.1f" y="%.1f" text-anchor="middle">%s</text>', (area.left + area.right) / 2, area.bottom + 34,
    text.escape(chart.x_label))
end

-- Splits a series' points into stretches: a point without y, or below the axis, ends one.
local function stretches(points, y)
  local list, current = {}, nil
  for _, p in ipairs(points) do
    if p.y and p.y >= y.low then
      if not current then
        current = {}
        list[#list + 1] = current
      end
      current[#current + 1] = p
    else
      current = nil
    end
  end
  return list
end

local function draw_band(put, stretch, area)
  local forth, back, wide = {}, {}, false
  for i, p in ipairs(stretch) do
    local low, high = math.max(p.low or p.y, area.low), p.high or p.y
    forth[i] = ("%.1f,%.1f"):format(area.x(p.x), area.y(high))
    back[#stretch + 1 - i] = ("%.1f,%.1f"):format(area.x(p.x), area.y(low))
    wide = wide or high > low
  end
  if wide and #stretch > 1 then
    put('<polygon class="b" points="%s %s"/>', table.concat(forth, " "), table.concat(back, " "))
  end
end

local function draw_line(put, stretch, area)
  local points, values = {}, {}
  for i, p in ipairs(stretch) do
    points[i] = ("%.1f,%.1f"):format(area.x(p.x), area.y(p.y))
    values[i] = ("%.6g %.6g"):format(p.x, p.y)
  end
  if #stretch > 1 then
    put('<polyline class="l" points="%s" data-v="%s"/>', table.concat(points, " "), table.concat(values, " "))
  end
end

-- The lowest level above the axis that is free between x = first and x = last; adds it to those
-- that are taken. taken: list of {first, last, level}.
local function free_level(taken, first, last)
  local level, found = 0, false
  while not found do
    found = true
    for _, t in ipairs(taken) do
      if t.level == level and t.first < last and first < t.last then level, found = level + 1, false end
    end
  end
  taken[#taken + 1] = { first = first, last = last, level = level }
  return level
end

-- Draws a point that is below the axis: an arrow at the lower edge with its value, above other
-- arrows that are in its way.
local function draw_below(put, p, area)
  local x, value = area.x(p.x), p.value or ("%.4g"):format(p.y)
  local left, wide = x > area.right - 60, 14 + 7 * #value
  local level = free_level(area.below, x - (left and wide or 7), x + (left and 7 or wide))
  local y = area.bottom - 4 - 15 * level
  put('%s<text class="t" x="%.1f" y="%.1f" text-anchor="%s">%s</text>', marker("down", x, y - 3, 4.5), x + (left and -9 or 9),
    y + 1, left and "end" or "start", text.escape(value))
end

local function draw_points(put, index, s, area)
  for i, p in ipairs(s.points) do
    local shown = p.y and p.y >= area.low
    if p.y and (not shown or (s.marker and (i + index) % (s.every or 1) == 0)) then
      put('<g%s>', p.faint and ' class="faint"' or "")
      if p.title then put("<title>%s</title>", text.escape(p.title)) end
      if shown then
        local x, y = area.x(p.x), area.y(p.y)
        if p.low and p.high > p.low and not s.every then
          put('<line class="w" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>', x, area.y(math.max(p.low, area.low)), x,
            area.y(p.high))
        end
        put("%s", marker(s.marker, x, y, s.every and 3.5 or 4.2))
      else
        draw_below(put, p, area)
      end
      put "</g>"
    end
  end
end

local function classes(s)
  return s.class .. (s.dash and " d" .. s.dash or "") .. (s.hollow and " o" or "")
end

-- Draws a level line over the whole width, such as fp32's accuracy.
local function draw_level(put, s, area)
  local y = s.level and s.level >= area.low and area.y(s.level)
  if y then put('<line class="l" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>', area.left, y, area.right, y) end
end

local function draw_series(put, index, s, area)
  put('<g class="series %s" data-s="%d"><title>%s</title>', classes(s), index, text.escape(s.label))
  draw_level(put, s, area)
  for _, stretch in ipairs(stretches(s.points, area)) do
    draw_band(put, stretch, area)
    if s.line ~= false then draw_line(put, stretch, area) end
    local only = stretch[1]
    if #stretch == 1 and not s.marker then put("%s", marker("circle", area.x(only.x), area.y(only.y), 2.6)) end
  end
  draw_points(put, index, s, area)
  put "</g>"
end

-- The columns of a legend: as many as fit, each as wide as its widest entry. Returns where they
-- begin, and the number of rows.
local function legend_columns(widths, room)
  for columns = math.min(#widths, 4), 1, -1 do
    local rows, starts, x = math.ceil(#widths / columns), {}, 0
    for first = 1, #widths, rows do
      starts[#starts + 1] = x
      x = x + math.max(table.unpack(widths, first, math.min(first + rows - 1, #widths)))
    end
    if x <= room or columns == 1 then return starts, rows end
  end
end

-- Draws the legend; returns its height.
local function draw_legend(put, chart, top, left)
  local labels, widths = {}, {}
  for i, s in ipairs(chart.series) do
    labels[i] = text.shorten(s.label, 60)
    widths[i] = text.width(labels[i] .. " " .. (s.value or ""), font) + 48
  end
  local starts, rows = legend_columns(widths, chart.width - left)
  for i, s in ipairs(chart.series) do
    local x, y = left + starts[(i - 1) // rows + 1], top + (i - 1) % rows * row
    put('<g class="key %s" data-s="%d">', classes(s), i)
    if s.line ~= false then put('<line class="l" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>', x, y - 4, x + 26, y - 4) end
    if s.marker then put("%s", marker(s.marker, x + 13, y - 4, 4.2)) end
    put('<text class="t" x="%.1f" y="%.1f">%s%s</text></g>', x + 33, y, text.escape(labels[i]),
      s.value and (' <tspan class="v">%s</tspan>'):format(text.escape(s.value)) or "")
  end
  return rows * row
end

--- Draws a chart.
-- @param chart {title =, y_label =, x_label =, x = axis, y = axis (axis.lua), width =, plot_height
--   = pixels or nil, series = list of {label =, value = text or nil, class = "s0" to "s8", marker =
--   name or nil, dash = 1 to 3 or nil, hollow =, every = n for markers at each nth point only, line
--   = false for points only, level = y of a line over the whole width, points = list of {x =, y =
--   (nil: a gap), low =, high = (range of y), title =, faint =, value = text beside the arrow of a
--   point below the axis}}}
-- @return the drawing
function M.draw(chart)
  local out = {}
  local function put(format, ...) out[#out + 1] = select("#", ...) > 0 and format:format(...) or format end
  chart.width = chart.width or M.width
  local left = 16
  for _, label in ipairs(chart.y.labels) do left = math.max(left, text.width(label, font) + 16) end
  local area = {
    left = left, right = chart.width - right, top = title_height + 8, low = chart.y.low,
    bottom = title_height + 8 + (chart.plot_height or plot_height), below = {},
  }
  function area.x(v) return area.left + chart.x.at(v) * (area.right - area.left) end
  function area.y(v) return area.bottom - chart.y.at(v) * (area.bottom - area.top) end
  put('<text class="t h" x="10" y="18">%s</text>', text.escape(chart.title))
  put('<text class="t q" x="10" y="36">%s</text>', text.escape(chart.y_label))
  draw_axes(put, chart, area)
  for i, s in ipairs(chart.series) do draw_series(put, i, s, area) end
  local top = area.bottom + 58
  local height = math.ceil(top + draw_legend(put, chart, top, 14)) - 6
  return { title = ("%s: %s"):format(chart.title, chart.y_label), width = chart.width, height = height, body = table.concat(out) }
end

--- A drawing as a picture in a page.
-- @param drawing the result of a draw function
-- @return an <svg> element
function M.svg(drawing)
  return ('<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" '
    .. 'aria-label="%s">%s</svg>'):format(drawing.width, drawing.height, drawing.width, drawing.height,
    text.escape(drawing.title), drawing.body)
end

return M
