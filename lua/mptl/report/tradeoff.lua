--- Accuracy against the share of low elements, a curve per policy, as in the figures of the
-- method's paper.
local axis = require "mptl.report.axis"
local chart = require "mptl.report.chart"
local compare = require "mptl.report.compare"

local M = {}

-- Colour and marker of each policy; other policies share the last one.
local looks = {
  fp32 = { "s0", "bar" }, uniform = { "s0", "plus" }, demotion = { "s1", "circle" }, operator = { "s2", "square" },
  increasing = { "s3", "up" }, random = { "s4", "diamond" }, amp = { "s5", "down" }, uniform_low = { "s6", "cross" },
  top_k = { "s7", "plus" },
}
local other = { "s8", "plus" }

local fields = { assignment = "test_acc", fp32 = "test_acc_fp32" }
local against_labels = {
  ratio_lo = "share of elements in low precision (ratio_lo)", bits_ratio = "bits ratio (1: half of the bits saved)",
}

-- Accuracy and ratio of a run, in its last epoch or in the epoch with the best accuracy.
local function figures(run, options)
  local field = fields[options.accuracy]
  local m = options.epoch == "best" and compare.best(run, field) or compare.last(run)
  if not m or not m[field] then return nil end
  return { acc = m[field], ratio = run.settings.policy == "fp32" and 0 or m[options.against], epoch = m.epoch }
end

-- The point of runs that differ in their seeds only; of the finished runs, if there are any.
local function point(runs, options)
  local list, finished = {}, false
  for _, run in ipairs(runs) do finished = finished or compare.finished(run) end
  for _, run in ipairs(runs) do
    local f = compare.finished(run) == finished and figures(run, options)
    if f and f.ratio then list[#list + 1] = f end
  end
  if #list == 0 then return nil end
  local p = { x = 0, y = 0, low = math.huge, high = -math.huge, faint = not finished }
  for _, f in ipairs(list) do
    p.x, p.y = p.x + f.ratio / #list, p.y + f.acc / #list
    p.low, p.high = math.min(p.low, f.acc), math.max(p.high, f.acc)
  end
  p.title = ("%s: %.2f %% at %.4f"):format(#list == 1 and runs[1].label or runs[1].point, p.y, p.x)
  if #list > 1 then p.title = ("%s, mean of %d seeds, %.2f to %.2f"):format(p.title, #list, p.low, p.high) end
  if not finished then p.title = ("%s, unfinished: epoch %d"):format(p.title, list[1].epoch) end
  return p
end

-- Bundles the elements of a list that are equal in a field; bundles are in the order of their first
-- elements.
local function by(list, field)
  local bundles, index = {}, {}
  for _, x in ipairs(list) do
    local bundle = index[x[field]]
    if not bundle then
      bundle = {}
      index[x[field]], bundles[#bundles + 1] = bundle, bundle
    end
    bundle[#bundle + 1] = x
  end
  return bundles
end

-- The points of a curve's runs, by x; whether some of them are means of different accuracies.
local function points_of(runs, options)
  local points, seeds = {}, false
  for _, same in ipairs(by(runs, "point")) do
    local p = point(same, options)
    points[#points + 1] = p
    seeds = seeds or (p and p.high > p.low)
  end
  table.sort(points, function(a, b) return a.x < b.x end)
  return points, seeds
end

--- The curves of a panel.
-- @param panel from compare.panels
-- @param options {against = "ratio_lo" or "bits_ratio", accuracy = "assignment" or "fp32", epoch =
--   "last" or "best"}
-- @return list of series for chart.draw
function M.series(panel, options)
  local list, used = {}, {}
  for _, runs in ipairs(by(panel.runs, "curve")) do
    local points, seeds = points_of(runs, options)
    if #points > 0 then
      local policy = runs[1].settings.policy
      local look = looks[policy] or other
      local n = used[look] or 0
      used[look] = n + 1
      list[#list + 1] = {
        label = runs[1].curve .. (seeds and " (mean and range)" or ""), class = look[1], marker = look[2],
        dash = n > 0 and (n - 1) % 3 + 1 or nil, hollow = n > 0, points = points, line = #points > 1 or policy == "fp32",
        level = policy == "fp32" and n == 0 and points[1].y or nil,
      }
      if list[#list].level then list[#list].dash = 1 end
    end
  end
  return list
end

-- The range of accuracies to show. An accuracy far below the others (of a run that diverged) would
-- flatten their differences, so it is drawn at the lower edge with its value. Returns the range,
-- and whether there are such accuracies.
local function range(series)
  local values = {}
  for _, s in ipairs(series) do
    for _, p in ipairs(s.points) do
      values[#values + 1] = p.low
      values[#values + 1] = p.high
    end
  end
  table.sort(values)
  local best, middle = values[#values], values[#values // 2 + 1]
  local least = best - math.max(5, 4 * (best - middle))
  local low = best
  for _, v in ipairs(values) do
    if v >= least then low = math.min(low, v) end
  end
  return low, best, values[1] < low
end

--- Draws the trade-off of a panel.
-- @param panel from compare.panels
-- @param options as in M.series, and title =, width =, plot_height =
-- @return the drawing; nil when no run has an accuracy
function M.draw(panel, options)
  local series = M.series(panel, options)
  if #series == 0 then return nil end
  local low, high, below = range(series)
  if below then low = low - (high - low) * 0.12 - 0.05 end -- room for the arrows
  local least, most = 0, 1 -- of x
  for _, s in ipairs(series) do
    for _, p in ipairs(s.points) do
      least, most = math.min(least, p.x), math.max(most, p.x)
      p.value = ("%.1f"):format(p.y)
    end
  end
  local what = options.accuracy == "fp32" and "test accuracy in fp32, %" or "test accuracy, %"
  return chart.draw {
    title = options.title or panel.title, y_label = what .. (options.epoch == "best" and ", best epoch" or ", last epoch"),
    x_label = against_labels[options.against], series = series, width = options.width, plot_height = options.plot_height,
    x = axis.linear(least, most, { tight = true }), y = axis.linear(low, high, { least = 0, most = 100 }),
  }
end

return M
