--- A plan as a table: what plan.json and `mptl plan --json` hold.
local compute = require "mptl.compute"
local core = require "mptl.core"
local json = require "mptl.json"

local M = {}

-- The memory of a training step, as the engine predicts it.
local function memory(cfg, assignment)
  local function total(storage)
    return core.predict_memory(assignment,
      { storage = storage, compute = cfg.compute, device = cfg.device, optimizer = cfg.optimizer.name }).total
  end
  return json.object({ "emulated_bytes", "packed_bytes" },
    { emulated_bytes = total "emulated", packed_bytes = total "packed" })
end

local function tensor(t, with_group)
  if not t then return json.null end
  local group = with_group and t.group.index or nil
  return json.object({ "format", "numel", "group" }, { format = t.format, numel = t.numel, group = group })
end

--- The table of a plan: groups, tensors, ratios, memory.
-- @param cfg the configuration
-- @param plan the plan (script.plan)
-- @param products how the device multiplies, from core.predict_products; nil to leave it out
-- @return a table that mptl.json encodes in the documented order
function M.create(cfg, plan, products)
  local groups, tensors, parameters = {}, {}, 0
  local products_of = compute.products_table(products or {})
  for i, g in ipairs(plan.graph:groups()) do
    groups[i] = json.object({ "group", "activations", "parameters", "numel", "low" },
      { group = g.index, activations = g.activations, parameters = g.parameters, numel = g.numel, low = g.low })
    parameters = parameters + g.parameters
  end
  for i, op in ipairs(plan.graph:operators()) do
    tensors[i] = json.object({ "index", "name", "kind", "group", "v", "dv", "theta", "dtheta", "products" }, {
      index = op.index, name = op.name, kind = op.kind, group = op.group.index,
      v = tensor(op.v), dv = tensor(op.dv), theta = tensor(op.theta, true), dtheta = tensor(op.dtheta, true),
      products = products_of[op.index],
    })
  end
  local ratios = plan.graph:ratios()
  return json.object({ "model", "batch", "parameters", "groups", "order", "tensors", "ratio_lo", "bits", "memory" }, {
    model = cfg.name, batch = plan.batch, parameters = parameters, groups = json.array(groups), order = json.array(plan.order),
    tensors = json.array(tensors), ratio_lo = ratios.ratio_lo,
    bits = json.object({ "all_high", "now", "ratio" },
      { all_high = ratios.bits_all_high, now = ratios.bits_now, ratio = ratios.bits_ratio }),
    memory = memory(cfg, plan.assignment),
  })
end

return M
