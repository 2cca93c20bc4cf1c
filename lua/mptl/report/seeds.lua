--- Runs that differ in their seeds only: their number, means and standard deviations.
local columns = require "mptl.report.columns"
local compare = require "mptl.report.compare"

local M = {}

--- Mean and standard deviation.
-- @param values list of numbers
-- @return {n =, mean =, deviation = the sample's standard deviation (divided by n - 1); nil for one
--   value}; nil when the list is empty
function M.statistics(values)
  local n, sum, squares = #values, 0, 0
  if n == 0 then return nil end
  for _, x in ipairs(values) do sum = sum + x end
  local mean = sum / n
  for _, x in ipairs(values) do squares = squares + (x - mean) ^ 2 end
  return { n = n, mean = mean, deviation = n > 1 and math.sqrt(squares / (n - 1)) or nil }
end

--- Bundles the elements of a list that are equal in a field.
-- @param list list of tables
-- @param field its name
-- @return list of lists, in the order of their first elements
function M.by(list, field)
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

--- The runs of a point that count: the finished ones, if there are any.
-- @param runs list of runs of one point
-- @return list of runs
-- @return whether they are finished
function M.counting(runs)
  local finished = {}
  for _, run in ipairs(runs) do
    if compare.finished(run) then finished[#finished + 1] = run end
  end
  if #finished > 0 then return finished, true end
  return runs, false
end

local is_averaged = {
  test_acc = true, best_test_acc = true, test_acc_fp32 = true, train_loss = true, ratio_lo = true, bits_ratio = true,
}

--- The columns of which M.rows has statistics: rows of columns.list.
M.averaged = {}
for _, column in ipairs(columns.list) do
  if is_averaged[column[1]] then M.averaged[#M.averaged + 1] = column end
end

--- Statistics of a panel's points.
-- @param panel from compare.panels
-- @return list of {label =, settings = (of the first run), n = runs that count, finished =, [a column's
--   name] = as from statistics, of those runs for which it is known}; whether a point has several runs
function M.rows(panel)
  local rows, several = {}, false
  for _, same in ipairs(M.by(panel.runs, "point")) do
    local counting, finished = M.counting(same)
    local row = { label = same[1].point, settings = same[1].settings, n = #counting, finished = finished }
    for _, column in ipairs(M.averaged) do
      local values = {}
      for _, run in ipairs(counting) do values[#values + 1] = column[3](run) end
      row[column[1]] = M.statistics(values)
    end
    several = several or row.n > 1
    rows[#rows + 1] = row
  end
  return rows, several
end

return M
