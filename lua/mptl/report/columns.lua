--- The table of runs: one list of columns, read by the page and by CSV.
local compare = require "mptl.report.compare"

local M = {}

local function setting(name)
  return function(run) return run.settings[name] end
end

local function last(field)
  return function(run)
    local m = compare.last(run)
    return m and m[field]
  end
end

local function best(run)
  local m = compare.best(run, "test_acc")
  return m and m.test_acc
end

local function sum(field)
  return function(run)
    local total
    for _, m in ipairs(run.epochs) do total = m[field] and (total or 0) + m[field] or total end
    return total
  end
end

local function peak(run)
  local most
  for _, m in ipairs(run.epochs) do most = m.peak_bytes and math.max(most or 0, m.peak_bytes) or most end
  return most
end

local by_group = { demotion = true, increasing = true, random = true, top_k = true }

-- The promotion threshold as shown: "off" where a policy that usually promotes was told not to.
local function threshold(run)
  return run.settings.threshold or (by_group[run.settings.policy] and "off") or nil
end

--- Columns: name in CSV, header in the page, value of a run (nil: unknown), format in the page (nil: as it is, to the left),
-- scale by which the page divides.
M.list = {
  { "run", "run", function(run) return run.name end },
  { "script", "script", setting "script" },
  { "width", "width", setting "width", "%.6g" },
  { "dataset", "data set", setting "dataset" },
  { "policy", "policy", setting "policy" },
  { "ratio", "ratio", setting "ratio", "%.6g" },
  { "k", "k", setting "k", "%.6g" },
  { "threshold", "threshold", threshold, "%.6g" },
  { "seed", "seed", setting "seed", "%.0f" },
  { "policy_seed", "policy seed", setting "policy_seed", "%.0f" },
  { "state", "state", compare.state },
  { "epochs", "epochs", function(run) return last "epoch" (run) or 0 end, "%.0f" },
  { "epochs_wanted", "of", setting "epochs", "%.0f" },
  { "test_acc", "test, %", last "test_acc", "%.2f" },
  { "best_test_acc", "best, %", best, "%.2f" },
  { "test_acc_fp32", "in fp32, %", last "test_acc_fp32", "%.2f" },
  { "train_loss", "train loss", last "train_loss", "%.4f" },
  { "test_loss", "test loss", last "test_loss", "%.4f" },
  { "ratio_lo", "ratio_lo", last "ratio_lo", "%.4f" },
  { "bits_ratio", "bits ratio", last "bits_ratio", "%.4f" },
  { "promotions", "promotions", last "promotions", "%.0f" },
  { "skipped_steps", "skipped steps", sum "skipped_steps", "%.0f" },
  { "peak_bytes", "peak MB", peak, "%.1f", 1e6 },
  { "seconds", "seconds", sum "seconds", "%.0f" },
  { "directory", nil, function(run) return run.dir end }, -- in CSV only
}

return M
