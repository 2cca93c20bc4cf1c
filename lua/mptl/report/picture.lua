--- Several drawings as one SVG picture that needs no other file, for a README.
local style = require "mptl.report.style"
local text = require "mptl.report.text"

local M = {}

local gap, margin = 18, 8

--- Puts drawings side by side, two in a row.
-- @param drawings list from chart.draw or heat.draw
-- @return SVG
function M.compose(drawings)
  local columns = #drawings > 1 and 2 or 1
  local widths, y, out, titles = 0, margin, {}, {}
  for first = 1, #drawings, columns do
    local x, tallest = margin, 0
    for i = first, math.min(first + columns - 1, #drawings) do
      local d = drawings[i]
      out[#out + 1] = ('<g transform="translate(%d %d)">%s</g>'):format(x, y, d.body)
      titles[i] = d.title
      x, tallest = x + d.width + gap, math.max(tallest, d.height)
    end
    widths, y = math.max(widths, x - gap + margin), y + tallest + gap
  end
  local height = y - gap + margin
  return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">\n<title>%s</title>\n'
    .. '<style>%s</style>\n<rect class="paper" width="%d" height="%d"/>\n%s\n</svg>\n'):format(widths, height, widths, height,
    text.escape(table.concat(titles, "; ")), style.charts(), widths, height,
    (table.concat(out, "\n"):gsub("><g", ">\n<g")))
end

return M
