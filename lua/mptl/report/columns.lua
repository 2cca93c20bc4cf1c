--- The table of runs: one list of columns, for the page and for CSV.
local compare = require "mptl.report.compare"
local precision = require "mptl.precision"

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

-- The promotion threshold as text: "off" when a policy that promotes by default was told not to.
local function threshold(run)
  return run.settings.threshold or (precision.promotes(run.settings.policy) and "off") or nil
end

--- Columns: name in CSV, header in the page, function (run) -> value (nil: unknown), format in the
-- page (nil: text, aligned left), the page divides the value by this.
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
