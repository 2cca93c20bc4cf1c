--- Checks that a configuration can be trained on its data, before the first step.
local misuse = require "mptl.misuse"

local M = {}

--- Raises an error unless all batches of an epoch can be trained. The last batch may be smaller
-- than the others, and an operator such as batch norm needs a least number of samples.
-- @param cfg the configuration
-- @param count number of training images
-- @param graph the engine's graph
-- @return the smallest batch size that all operators can be trained with
function M.batch(cfg, count, graph)
  if cfg.batch > count then
    misuse.usage("--batch %d: larger than the training set, accepted are 1 to its %d images", cfg.batch, count)
  end
  local last = count % cfg.batch
  local least = 1
  for _, op in ipairs(graph:operators()) do
    least = math.max(least, op.least_batch)
    if cfg.batch < op.least_batch then
      misuse.usage("--batch %d: %s (%s) normalises one value per channel, accepted are batches of at least %d", cfg.batch,
        op.name, op.kind, op.least_batch)
    elseif last > 0 and last < op.least_batch then
      misuse.usage("--batch %d: leaves %d of the %d training images for the last batch, but %s (%s) normalises one value per"
        .. " channel, accepted are sizes that leave none or at least %d",
        cfg.batch, last, count, op.name, op.kind, op.least_batch)
    end
  end
  return least
end

--- Raises an error when the data set has more classes than the network.
-- @param cfg the configuration
-- @param opened the result of data.open
function M.classes(cfg, opened)
  if opened.classes > cfg.classes then
    misuse.usage("dataset %s: %d classes, the network has %d", cfg.dataset, opened.classes, cfg.classes)
  end
end

return M
