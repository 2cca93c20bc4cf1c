--- Charts by epoch: accuracy, loss, loss scale, skipped steps, promotions, gradient error. A chart
-- shows at most eight runs and, for reference, all runs in fp32.
local axis = require "mptl.report.axis"
local chart = require "mptl.report.chart"
local compare = require "mptl.report.compare"
local text = require "mptl.report.text"

local M = {}

local most = 8 -- runs in a chart: there are eight colours

local function metric(field)
  return function(run)
    local points = {}
    for i, m in ipairs(run.epochs) do points[i] = { x = m.epoch, y = m[field] } end
    return points
  end
end

local function loss_scale(run)
  local points, moved = {}, false
  for i, m in ipairs(run.epochs) do
    local low, high = m.loss_scale_log2_min, m.loss_scale_log2_max
    points[i] = { x = m.epoch, y = high, low = low, high = high }
    moved = moved or (low and low ~= 0) or (high and high ~= 0)
  end
  return moved and points or {} -- always 2^0 means no loss scaling
end

local function gradient_error(part)
  return function(run)
    local points = {}
    for i, e in ipairs(run.gradient_error or {}) do points[i] = { x = e.epoch, y = e[part] and e[part].relative } end
    return points
  end
end

local function nonzero(points)
  for _, p in ipairs(points) do
    if p.y and p.y ~= 0 then return true end
  end
  return false
end

local function accuracy_axis(low, high)
  return axis.linear(low, high, { least = 0, most = 100, ticks = 8 })
end

local function count_axis(_, high)
  return axis.linear(0, math.max(high, 1), { integer = true, least = 0 })
end

local function power_axis(low, high)
  return axis.linear(low, high, { integer = true, label = function(v) return text.power("2", v) end })
end

local function error_axis(low, high)
  if low > 0 and high / low > 100 then return axis.logarithmic(low, high) end
  return axis.linear(0, high)
end

--- The charts by name: {y_label, function (run) -> points, function (low, high) -> axis of the
-- values, format of the last value in the legend, title =, active = whether to leave out runs whose
-- points are all zero}.
M.charts = {
  accuracy = { "test accuracy, % (in each run's own precision)", metric "test_acc", accuracy_axis, "%.2f",
    title = "Test accuracy" },
  accuracy_fp32 = { "test accuracy in fp32, %", metric "test_acc_fp32", accuracy_axis, "%.2f", title = "Test accuracy in fp32" },
  loss = { "training loss of the epoch", metric "train_loss", axis.fitting, "%.4g", title = "Training loss" },
  test_loss = { "test loss", metric "test_loss", axis.fitting, "%.4g", title = "Test loss" },
  loss_scale = { "loss scale, least to largest of the epoch", loss_scale, power_axis, title = "Loss scale" },
  skipped = { "skipped steps of the epoch", metric "skipped_steps", count_axis, title = "Skipped steps" },
  promotions = { "promotions so far", metric "promotions", count_axis, "%.0f", active = true,
    title = "Promotions" },
  gradient_error = { "relative error to binary32, |g - g32| / |g32|", gradient_error "gradient", error_axis, "%.3g",
    title = "Gradient error" },
  update_error = { "relative error to binary32, |d - d32| / |d32|", gradient_error "update", error_axis, "%.3g",
    title = "Update error" },
}

local function last_value(points)
  for i = #points, 1, -1 do
    if points[i].y then return points[i].y end
  end
end

-- The runs that have points, as series without colours; fp32 runs are in a list of their own.
-- number: of the run among those not in fp32, from which its colour follows.
local function collect(panel, row)
  local list, reference, number = {}, {}, 0
  for _, run in ipairs(panel.runs) do
    local points = row[2](run)
    local value = last_value(points)
    if run.settings.policy ~= "fp32" then number = number + 1 end
    if value and (not row.active or nonzero(points)) then
      local s = { label = run.label, curve = run.curve, number = number, points = points }
      s.value = row[4] and row[4]:format(value) or nil
      local state = compare.state(run)
      if state ~= "finished" then s.label = ("%s, %s"):format(run.label, state) end
      local into = run.settings.policy == "fp32" and reference or list
      into[#into + 1] = s
    end
  end
  return list, reference
end

local function limits(lists)
  local low, high, last = math.huge, -math.huge, 1
  for _, list in ipairs(lists) do
    for _, s in ipairs(list) do
      for _, p in ipairs(s.points) do
        if p.y then low, high = math.min(low, p.low or p.y), math.max(high, p.high or p.y) end
        last = math.max(last, p.x)
      end
    end
  end
  return low, high, last
end

-- Distributes series over charts. Series of one curve (a policy, with all ratios and seeds) stay
-- together if they fit.
local function share_out(list)
  local shares, at = { {} }, 1
  while at <= #list do
    local last = at
    while list[last + 1] and list[last + 1].curve == list[at].curve do last = last + 1 end
    local count = last - at + 1
    local each = math.ceil(count / math.ceil(count / most))
    for first = at, last, each do
      local upto = math.min(first + each - 1, last)
      if #shares[#shares] + upto - first + 1 > most then shares[#shares + 1] = {} end
      local share = shares[#shares]
      table.move(list, first, upto, #share + 1, share)
    end
    at = last + 1
  end
  return shares
end

-- Gives each series of a chart a colour and a marker. A run has the same ones in all charts, unless
-- another run of this chart has them already.
local function colour(list)
  local taken = {}
  for _, s in ipairs(list) do
    local k = (s.number - 1) % most + 1
    while taken[k] do k = k % most + 1 end
    taken[k] = true
    s.class, s.marker, s.every = "s" .. k, chart.markers[k], math.ceil(#s.points / 8)
  end
end

-- An epoch axis from the first to the last epoch.
local function epoch_axis(last)
  local x = axis.linear(1, math.max(last, 2), { integer = true, tight = true, ticks = 7 })
  if x.ticks[1] > 1 then
    if x.at(x.ticks[1]) < 0.05 then
      x.ticks[1], x.labels[1] = 1, "1"
    else
      table.insert(x.ticks, 1, 1)
      table.insert(x.labels, 1, "1")
    end
  end
  return x
end

--- Draws a panel's runs.
-- @param panel from compare.panels
-- @param name a name in M.charts
-- @param options nil, or {title =, width =, plot_height =}
-- @return list of drawings with the same axes, as many as are needed; empty when no run has points
function M.draw(panel, name, options)
  options = options or {}
  local row = M.charts[name]
  local list, reference = collect(panel, row)
  if #list + #reference == 0 or (#list == 0 and row.active) then return {} end
  local low, high, last = limits { list, reference }
  local drawings, shares = {}, share_out(list)
  for c, share in ipairs(shares) do
    local series = {}
    for i, s in ipairs(reference) do
      s.class, s.dash = "s0", i > 1 and (i - 2) % 3 + 1 or nil
      series[i] = s
    end
    colour(share)
    table.move(share, 1, #share, #series + 1, series)
    drawings[c] = chart.draw {
      title = (options.title or panel.title) .. (#shares > 1 and (" (%d of %d)"):format(c, #shares) or ""), y_label = row[1],
      x_label = "epoch", series = series, width = options.width, plot_height = options.plot_height, x = epoch_axis(last),
      y = row[3](low, high),
    }
  end
  return drawings
end

return M
