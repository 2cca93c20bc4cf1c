--- Colours and styles of charts and page, light and dark. Charts use the classes s0 (reference) to
-- s8 for curves, and c1 to c6 for the cells of heat maps.
local M = {}

local light = {
  ink = "#1d232a", quiet = "#5b6570", grid = "#e3e6ea", axis = "#8a939c", paper = "#ffffff", panel = "#f6f7f9",
  [0] = "#5f6770", "#0068b3", "#cf4f00", "#008a5e", "#a8327d", "#2fa3d8", "#d99000", "#7a4a2b", "#7a7d00",
}
local dark = {
  ink = "#e4e8ec", quiet = "#9aa5b1", grid = "#2c333b", axis = "#6a7580", paper = "#14181d", panel = "#1c2229",
  [0] = "#a3adb8", "#58a9ee", "#f5834a", "#35c795", "#e27dbd", "#8fd4f7", "#f0bd4f", "#c9977a", "#c5c84a",
}
local cells = {
  light = { "#fdecc8", "#fbd08f", "#f6a35c", "#e36a3c", "#bf3226", "#7a1022" },
  dark = { "#33281a", "#5e4118", "#94591a", "#cc7424", "#f3a13e", "#ffe08a" },
}

local function colours(c, heat)
  local out = {
    (".t{fill:%s}.q,.v{fill:%s}.grid{stroke:%s}.axis{stroke:%s}.paper{fill:%s}.mark{stroke:%s}.frame{stroke:%s}"):format(
      c.ink, c.quiet, c.grid, c.axis, c.paper, c.ink, c.grid),
  }
  for i = 0, 8 do
    out[#out + 1] = (".s%d .l,.s%d .w,.s%d .m{stroke:%s}.s%d .m,.s%d .b{fill:%s}"):format(i, i, i, c[i], i, i, c[i])
  end
  out[#out + 1] = (".o .m{fill:%s}"):format(c.paper)
  for i, colour in ipairs(heat) do out[#out + 1] = (".c%d{fill:%s}"):format(i, colour) end
  return table.concat(out)
end

local shapes = [[
.t{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif}.t.h{font-size:13.5px;font-weight:600}
.grid,.axis,.frame{stroke-width:1;fill:none}.l{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.m{stroke-width:1.4;stroke-linejoin:round}.w{stroke-width:1.6}.b{stroke:none;fill-opacity:.14}.mark{stroke-width:1.6}
.d1 .l{stroke-dasharray:7 4}.d2 .l{stroke-dasharray:2 4}.d3 .l{stroke-dasharray:9 3 2 3}.faint{opacity:.5}
]]

--- The style sheet of charts.
-- @return CSS
function M.charts()
  return shapes .. colours(light, cells.light) .. "\n@media (prefers-color-scheme:dark){" .. colours(dark, cells.dark)
    .. "}\n@media print{" .. colours(light, cells.light) .. "}\n"
end

local layout = [[
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%%}
body{margin:0 auto;max-width:1240px;padding:20px 18px 60px;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Helvetica,Arial,"DejaVu Sans",sans-serif;
background:var(--paper);color:var(--ink)}
h1{font-size:24px;margin:0 0 4px}h2{font-size:19px;margin:40px 0 8px;padding-bottom:4px;border-bottom:1px solid var(--grid)}
h3{font-size:15.5px;margin:24px 0 6px}p{margin:4px 0 10px;max-width:78ch}.quiet,caption{color:var(--quiet)}
a{color:inherit}nav{margin:6px 0}nav a{margin-right:14px}ul{margin:4px 0;padding-left:20px}
.charts{display:flex;flex-wrap:wrap;gap:14px 20px;align-items:flex-start;
margin-bottom:16px}.charts>svg{max-width:100%%;height:auto;flex:0 1 auto}
.scroll{overflow-x:auto;margin:8px 0}table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:4px}th,td{padding:3px 9px;text-align:left;white-space:nowrap;
border-bottom:1px solid var(--grid)}
th{position:sticky;top:0;background:var(--panel);font-weight:600;vertical-align:bottom}.n{text-align:right}
th[data-sort]{cursor:pointer}
tbody tr:hover{background:var(--panel)}.bad{font-weight:600;color:var(--bad)}.off{opacity:.12}.key[data-s]{cursor:pointer}
details{margin:8px 0}summary{cursor:pointer}code{font-size:92%%}
#tip{position:fixed;pointer-events:none;display:none;background:var(--panel);border:1px solid var(--axis);border-radius:4px;
padding:5px 9px;font-size:12px;white-space:pre;z-index:9;font-variant-numeric:tabular-nums}
@media print{body{max-width:none;padding:0;font-size:11px}h2{break-after:avoid}h3{break-after:avoid}svg{break-inside:avoid}
.charts>svg{width:48%%}.scroll{overflow:visible}table{font-size:8px}th,td{padding:2px 4px;white-space:normal}
thead{display:table-header-group}tr{break-inside:avoid}}
]]

local function variables(c, bad)
  return ("--ink:%s;--quiet:%s;--grid:%s;--axis:%s;--paper:%s;--panel:%s;--bad:%s"):format(c.ink, c.quiet, c.grid, c.axis,
    c.paper, c.panel, bad)
end

--- The style sheet of the page, with that of charts.
-- @return CSS
function M.page()
  local paper = variables(light, "#b3261e")
  return (":root{color-scheme:light dark;%s}\n@media (prefers-color-scheme:dark){:root{%s}}\n@media print{:root{%s}}\n"):format(
    paper, variables(dark, "#ff8a80"), paper) .. layout:gsub("%%%%", "%%") .. M.charts()
end

return M
