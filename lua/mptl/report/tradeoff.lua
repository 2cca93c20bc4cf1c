--- Accuracy against the share of low elements, a curve per policy, as in the figures of the
-- method's paper.
local axis = require "mptl.report.axis"
local chart = require "mptl.report.chart"
local compare = require "mptl.report.compare"
local seeds = require "mptl.report.seeds"

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
  local counting, finished = seeds.counting(runs)
  local ratios, accuracies, epoch = {}, {}, nil
  for _, run in ipairs(counting) do
    local f = figures(run, options)
    if f and f.ratio then
      ratios[#ratios + 1], accuracies[#accuracies + 1], epoch = f.ratio, f.acc, epoch or f.epoch
    end
  end
  local acc, ratio = seeds.statistics(accuracies), seeds.statistics(ratios)
  if not acc then return nil end
  local spread = acc.deviation or 0
  local p = { x = ratio.mean, y = acc.mean, low = acc.mean - spread, high = acc.mean + spread, faint = not finished }
  p.title = ("%s: %.2f %% at %.4f"):format(acc.n == 1 and counting[1].label or runs[1].point, p.y, p.x)
  if acc.n > 1 then p.title = ("%s, mean of %d seeds, standard deviation %.2f"):format(p.title, acc.n, spread) end
  if not finished then p.title = ("%s, unfinished: epoch %d"):format(p.title, epoch) end
  return p
end

-- The points of a curve's runs, by x; whether some of them are means of different accuracies.
local function points_of(runs, options)
  local points, means = {}, false
  for _, same in ipairs(seeds.by(runs, "point")) do
    local p = point(same, options)
    points[#points + 1] = p
    means = means or (p and p.high > p.low)
  end
  table.sort(points, function(a, b) return a.x < b.x end)
  return points, means
end

--- The curves of a panel.
-- @param panel from compare.panels
-- @param options {against = "ratio_lo" or "bits_ratio", accuracy = "assignment" or "fp32", epoch =
--   "last" or "best"}
-- @return list of series for chart.draw
function M.series(panel, options)
  local list, used = {}, {}
  for _, runs in ipairs(seeds.by(panel.runs, "curve")) do
    local points, means = points_of(runs, options)
    if #points > 0 then
      local policy = runs[1].settings.policy
      local look = looks[policy] or other
      local n = used[look] or 0
      used[look] = n + 1
      list[#list + 1] = {
        label = runs[1].curve .. (means and " (mean and standard deviation)" or ""), class = look[1], marker = look[2],
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
