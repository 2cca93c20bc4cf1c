-- For specs of mptl report: writes run directories with given numbers.
local json = require "mptl.json"
local runs = require "support.runs"

local M = {}

--- Writes the files of a run directory: text unchanged, tables as JSON, lists of tables as JSON lines.
-- @param dir the directory
-- @param files name -> text, table or list of tables
function M.write(dir, files)
  assert(os.execute(("mkdir -p '%s'"):format(dir)))
  for name, content in pairs(files) do
    if type(content) == "table" then
      local lines = {}
      if name:match "%.jsonl$" then
        for i, line in ipairs(content) do lines[i] = json.encode(line) .. "\n" end
      else
        lines[1] = json.encode(content)
      end
      content = table.concat(lines)
    end
    runs.spill(dir .. "/" .. name, content)
  end
end

--- Settings of a run: a network of 10 classes, 2 epochs, policy fp32; `fields` replaces some.
function M.config(fields)
  local config = {
    script = "net", dataset = "cifar10", width = 1, classes = 10, epochs = 2, seed = 1, policy = "fp32", formats = "hfp8",
    batch = 128, storage = "packed",
  }
  for name, value in pairs(fields or {}) do config[name] = value end
  return config
end

--- A line of metrics; `fields` replaces some.
function M.epoch(epoch, test_acc, fields)
  local m = {
    epoch = epoch, lr = 0.1, train_loss = 1.5, train_acc = 50.0, test_loss = 1.25, test_acc = test_acc, test_acc_fp32 = test_acc,
    loss_scale_log2_min = 15.0, loss_scale_log2_max = 16.0, skipped_steps = 1, promotions = 0, ratio_lo = 0.5, bits_ratio = 0.4,
    peak_bytes = 2500000, images_per_s = 10.0, seconds = 3.0,
  }
  for name, value in pairs(fields or {}) do m[name] = value end
  return m
end

--- Writes a run of two epochs.
function M.run(dir, config, test_acc, fields)
  M.write(dir, {
    ["config.json"] = M.config(config), ["metrics.jsonl"] = { M.epoch(1, test_acc - 10, fields), M.epoch(2, test_acc, fields) },
  })
end

return M
