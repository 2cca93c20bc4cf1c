--- CSV files (RFC 4180: commas, CRLF, a header line): the table of runs, means over seeds, and the
-- metrics by epoch.
local columns = require "mptl.report.columns"
local run_directory = require "mptl.run"
local seeds = require "mptl.report.seeds"
local text = require "mptl.report.text"

local M = {}

local function line(values, n)
  local cells = {}
  for i = 1, n do cells[i] = text.csv(values[i]) end
  return table.concat(cells, ",") .. "\r\n"
end

--- The table of runs.
-- @param panels from compare.panels
-- @return CSV; unknown values are empty
function M.runs(panels)
  local names, out = {}, {}
  for i, column in ipairs(columns.list) do names[i] = column[1] end
  out[1] = line(names, #names)
  for _, panel in ipairs(panels) do
    for _, run in ipairs(panel.runs) do
      local values = {}
      for i, column in ipairs(columns.list) do values[i] = column[3](run) end
      out[#out + 1] = line(values, #names)
    end
  end
  return table.concat(out)
end

--- Means and standard deviations, with a line for runs that differ in their seeds only.
-- @param panels from compare.panels
-- @return CSV: script, width, dataset, runs (policy, ratio and what else differs), n, finished, then
--   the mean and the standard deviation of each column; unknown values are empty
function M.means(panels)
  local names = { "script", "width", "dataset", "runs", "n", "finished" }
  for _, column in ipairs(seeds.averaged) do
    names[#names + 1] = column[1]
    names[#names + 1] = column[1] .. "_sd"
  end
  local out = { line(names, #names) }
  for _, panel in ipairs(panels) do
    for _, row in ipairs((seeds.rows(panel))) do
      local s = row.settings
      local values = { s.script, s.width, s.dataset, row.label, row.n, row.finished }
      for i, column in ipairs(seeds.averaged) do
        local found = row[column[1]] or {}
        values[5 + 2 * i], values[6 + 2 * i] = found.mean, found.deviation
      end
      out[#out + 1] = line(values, #names)
    end
  end
  return table.concat(out)
end

--- The metrics, with a line per run and epoch.
-- @param panels from compare.panels
-- @return CSV: the run's name, then the fields of metrics.jsonl
function M.epochs(panels)
  local fields = run_directory.metrics
  local out = { line({ "run", table.unpack(fields) }, #fields + 1) }
  for _, panel in ipairs(panels) do
    for _, run in ipairs(panel.runs) do
      for _, m in ipairs(run.epochs) do
        local values = { run.name }
        for i, field in ipairs(fields) do values[i + 1] = m[field] end
        out[#out + 1] = line(values, #fields + 1)
      end
    end
  end
  return table.concat(out)
end

return M
