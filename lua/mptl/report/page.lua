--- The report as one HTML page with inline charts (SVG), tables, style and a short script. It loads
-- nothing else. Without the script only sorting, hiding curves and values at the pointer are
-- missing.
local chart = require "mptl.report.chart"
local columns = require "mptl.report.columns"
local compare = require "mptl.report.compare"
local curves = require "mptl.report.curves"
local script = require "mptl.report.page_script"
local seeds = require "mptl.report.seeds"
local style = require "mptl.report.style"
local tensors = require "mptl.report.tensors"
local text = require "mptl.report.text"
local tradeoff = require "mptl.report.tradeoff"

local M = {}

local escape = text.escape
local most_changes = 200 -- of one run in the page; changes.jsonl has them all

local Page = {}
Page.__index = Page

function Page:put(format, ...)
  self[#self + 1] = select("#", ...) > 0 and format:format(...) or format
end

-- A row of drawings.
function Page:charts(drawings)
  if #drawings == 0 then return end
  self:put '<div class="charts">'
  for _, d in ipairs(drawings) do self:put("%s", chart.svg(d)) end
  self:put "</div>"
end

local function cell(column, run)
  local value, format = column[3](run), column[4]
  if type(value) == "number" and format then return format:format(value / (column[5] or 1)), value end
  return tostring(value or (format and "–" or ""))
end

-- The columns in which any run has a value.
local function shown_columns(runs)
  local shown = {}
  for _, column in ipairs(columns.list) do
    local any = false
    for _, run in ipairs(runs) do any = any or column[3](run) ~= nil end
    if column[2] and any then shown[#shown + 1] = column end
  end
  return shown
end

function Page:runs_table(panels, runs)
  local shown = shown_columns(runs)
  self:put '<h2 id="runs">Runs</h2><div class="scroll"><table class="sortable"><thead><tr>'
  for _, column in ipairs(shown) do
    self:put('<th data-sort%s>%s</th>', column[4] and ' class="n"' or "", escape(column[2]))
  end
  self:put "</tr></thead><tbody>"
  for _, panel in ipairs(panels) do
    for _, run in ipairs(panel.runs) do
      self:put('<tr title="%s">', escape(run.dir))
      for _, column in ipairs(shown) do
        local shows, value = cell(column, run)
        local bad = column[1] == "state" and (shows == "diverged" or shows == "at chance")
        self:put('<td%s%s>%s</td>', column[4] and ' class="n"' or bad and ' class="bad"' or "",
          value and (' data-v="%.14g"'):format(value) or "", escape(shows))
      end
      self:put "</tr>"
    end
  end
  self:put "</tbody></table></div>"
  self:put('<p class="quiet">%s</p>', "test, in fp32 and the losses are from the last epoch; best is "
    .. "the best test accuracy of all epochs; skipped steps and seconds are sums over all epochs. A run "
    .. "has diverged when its loss is not a number or its accuracy fell back to chance.")
end

function Page:tradeoffs(panels, options)
  self:put '<h2 id="tradeoff">Accuracy and the share of low precision</h2>'
  self:put('<p class="quiet">%s</p>', "A point is a run, a line joins the runs of a policy. Runs that "
    .. "differ in their seeds only are one point at their mean, with the standard deviation of their accuracies. "
    .. "Arrows at the lower edge: values below the axis. Faint points: unfinished runs. The ratio is "
    .. "from the end of a run, after promotions; an fp32 run is at 0, and a line across the chart shows "
    .. "its accuracy.")
  for _, panel in ipairs(panels) do
    local drawings = {}
    for _, against in ipairs(options.against and { options.against } or { "ratio_lo", "bits_ratio" }) do
      for _, accuracy in ipairs(options.accuracy and { options.accuracy } or { "assignment", "fp32" }) do
        drawings[#drawings + 1] = tradeoff.draw(panel, { against = against, accuracy = accuracy, epoch = options.epoch })
      end
    end
    if #drawings == 0 then self:put("<p>%s: no run has finished an epoch.</p>", escape(panel.title)) end
    self:charts(drawings)
  end
end

-- Means and standard deviations of a panel's runs that differ in their seeds only; nothing if there
-- are none.
function Page:means(panel)
  local rows, several = seeds.rows(panel)
  if not several then return end
  self:put '<h3>Means over seeds</h3><div class="scroll"><table class="sortable"><thead><tr><th data-sort>runs</th>'
  self:put '<th data-sort class="n">n</th>'
  for _, column in ipairs(seeds.averaged) do self:put('<th data-sort class="n">%s</th>', escape(column[2])) end
  self:put "</tr></thead><tbody>"
  for _, row in ipairs(rows) do
    self:put('<tr><td>%s%s</td><td class="n">%d</td>', escape(row.label), row.finished and "" or " (unfinished)", row.n)
    for _, column in ipairs(seeds.averaged) do
      local s, format = row[column[1]], column[4]
      local shown = s and format:format(s.mean) .. (s.deviation and " ± " .. format:format(s.deviation) or "") or "–"
      self:put('<td class="n"%s>%s</td>', s and (' data-v="%.14g"'):format(s.mean) or "", shown)
    end
    self:put "</tr>"
  end
  self:put '</tbody></table></div><p class="quiet">n runs; mean ± standard deviation, the squares divided by n − 1.</p>'
end

-- A heading and the charts with these names; nothing when no run has points.
function Page:by_epoch(panel, heading, names)
  local lists, drawings, longest = {}, {}, 0
  for i, name in ipairs(names) do
    lists[i] = curves.draw(panel, name, { title = curves.charts[name].title })
    longest = math.max(longest, #lists[i])
  end
  for at = 1, longest do -- charts of the same runs side by side
    for _, list in ipairs(lists) do drawings[#drawings + 1] = list[at] end
  end
  if #drawings == 0 then return end
  self:put("<h3>%s</h3>", escape(heading))
  self:charts(drawings)
end

local function changes_by_step(run)
  local list = {}
  for _, c in ipairs(run.changes or {}) do list[#list + 1] = c end
  table.sort(list, function(a, b) return a.step < b.step end)
  return list
end

-- The tensors whose format changed: {operator =, role =, to = format, runs = in how many runs, step
-- =, epoch = of the first change}.
local function changed_tensors(panel)
  local rows, by_key = {}, {}
  for _, run in ipairs(panel.runs) do
    local in_run = {}
    for _, c in ipairs(changes_by_step(run)) do
      local key = ("%s\0%s\0%s"):format(c.operator, c.role, c.to)
      local r = by_key[key]
      if not r then
        r = { operator = c.operator, role = c.role, to = c.to, runs = 0, step = c.step, epoch = c.epoch }
        by_key[key], rows[#rows + 1] = r, r
      end
      if not in_run[key] then r.runs, in_run[key] = r.runs + 1, true end
      if c.step < r.step then r.step, r.epoch = c.step, c.epoch end
    end
  end
  table.sort(rows, function(a, b)
    if a.runs ~= b.runs then return a.runs > b.runs end
    if a.step ~= b.step then return a.step < b.step end
    return a.operator .. a.role < b.operator .. b.role
  end)
  return rows
end

function Page:changed_tensors(panel)
  local rows = changed_tensors(panel)
  if #rows == 0 then return end
  self:put('<details%s><summary>Tensors whose format changed: %d</summary><div class="scroll"><table class="sortable"><thead><tr>'
    .. '<th data-sort>operator</th><th data-sort>tensor</th><th data-sort>to</th><th data-sort class="n">in runs</th>'
    .. '<th data-sort class="n">first in epoch</th><th data-sort class="n">step</th></tr></thead><tbody>',
    #rows <= 20 and " open" or "", #rows)
  for _, r in ipairs(rows) do
    self:put('<tr><td>%s</td><td>%s</td><td>%s</td><td class="n">%d</td><td class="n">%d</td><td class="n">%d</td></tr>',
      escape(r.operator), escape(r.role), escape(r.to), r.runs, r.epoch, r.step)
  end
  self:put "</tbody></table></div></details>"
end

function Page:changes_of_run(run)
  local list = changes_by_step(run)
  if #list == 0 then return end
  self:put('<details><summary>%s: %d change%s of format</summary><div class="scroll"><table><thead><tr><th class="n">step</th>'
    .. '<th class="n">epoch</th><th>operator</th><th>tensor</th><th>from</th><th>to</th><th>cause</th></tr></thead><tbody>',
    escape(run.label), #list, #list == 1 and "" or "s")
  for i = 1, math.min(#list, most_changes) do
    local c = list[i]
    self:put('<tr><td class="n">%d</td><td class="n">%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>',
      c.step, c.epoch, escape(c.operator), escape(c.role), escape(c.from or ""), escape(c.to), escape(c.cause or ""))
  end
  self:put "</tbody></table></div>"
  if #list > most_changes then
    self:put("<p>%d more are in %s/changes.jsonl.</p>", #list - most_changes, escape(run.dir))
  end
  self:put "</details>"
end

local function any(list, test)
  for _, x in ipairs(list) do
    if test(x) then return true end
  end
  return false
end

function Page:promotions(panel)
  local promoted = any(panel.runs, function(run)
    local m = compare.last(run)
    return (m and m.promotions or 0) > 0 or #(run.changes or {}) > 0
  end)
  if not promoted then return end
  self:put "<h3>Promotions</h3>"
  self:charts(curves.draw(panel, "promotions", { title = "Promotions" }))
  self:changed_tensors(panel)
  for _, run in ipairs(panel.runs) do self:changes_of_run(run) end
end

function Page:tensors(run)
  if not run.tensors then return end
  self:put("<h3>Tensors of %s</h3>", escape(run.label))
  local drawings = {}
  for _, row in ipairs { { "overflow", "Overflow" }, { "underflow", "Underflow" }, { "strange", "Infinities and NaN in" } } do
    drawings[#drawings + 1] = tensors.share(run, row[1], row[2])
  end
  for _, role in ipairs(tensors.roles) do drawings[#drawings + 1] = tensors.exponents(run, role) end
  if #drawings == 0 then
    self:put("<p>No overflow or underflow in %d measured steps.</p>", #run.tensors.steps)
  end
  self:charts(drawings)
end

function Page:gradient_errors(panel)
  self:by_epoch(panel, "Gradient error", { "gradient_error", "update_error" })
  local drawings = {}
  for _, run in ipairs(panel.runs) do
    drawings[#drawings + 1] = run.gradient_error and tensors.gradient_error(run, "By parameter: " .. run.label)
  end
  self:charts(drawings)
end

function Page:panel(index, panel)
  self:put('<h2 id="panel%d">%s</h2>', index, escape(panel.title))
  self:means(panel)
  self:by_epoch(panel, "Training", { "accuracy", "loss" })
  self:by_epoch(panel, "Loss scale and skipped steps", { "loss_scale", "skipped" })
  self:promotions(panel)
  self:gradient_errors(panel)
  for _, run in ipairs(panel.runs) do self:tensors(run) end
end

function Page:head(panels, runs, notes)
  local states, words = {}, {}
  for _, run in ipairs(runs) do
    local state = compare.state(run)
    states[state] = (states[state] or 0) + 1
  end
  for _, state in ipairs { "finished", "unfinished", "diverged", "at chance", "no epoch yet" } do
    if states[state] then words[#words + 1] = ("%d %s"):format(states[state], state) end
  end
  self:put("<h1>Training runs</h1><p>%d run%s: %s.</p>", #runs, #runs == 1 and "" or "s", table.concat(words, ", "))
  self:put '<nav><a href="#tradeoff">Trade-off</a><a href="#runs">Runs</a>'
  for i, panel in ipairs(panels) do self:put('<a href="#panel%d">%s</a>', i, escape(panel.title)) end
  self:put "</nav>"
  if #notes > 0 then
    self:put '<p class="bad">Not everything could be read:</p><ul>'
    for _, note in ipairs(notes) do self:put("<li>%s</li>", escape(note)) end
    self:put "</ul>"
  end
end

--- The page.
-- @param panels from compare.panels
-- @param runs list from runs.load
-- @param notes list of text: what could not be read
-- @param options {against =, accuracy = (nil: both), epoch = "last" or "best"}
-- @return HTML
function M.html(panels, runs, notes, options)
  local page = setmetatable({}, Page)
  page:put('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    .. "<title>mptl: %d run%s</title><style>%s</style></head><body>", #runs, #runs == 1 and "" or "s", style.page())
  page:head(panels, runs, notes)
  page:tradeoffs(panels, options)
  page:runs_table(panels, runs)
  for i, panel in ipairs(panels) do page:panel(i, panel) end
  page:put("<script>%s</script></body></html>", script)
  return table.concat(page, "\n") .. "\n"
end

return M
