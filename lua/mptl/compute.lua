--- The types that convolutions and linear layers multiply: for each pass the narrowest one in which
-- the products of its two operands are exact.
local core = require "mptl.core"
local json = require "mptl.json"

local M = {}

--- The types of an operator's passes.
-- @param op an operator of a described graph (plan.graph)
-- @param compute the setting: "auto", "f32", "narrow", "fp8", "tf32", "onednn"
-- @param device the device that computes, "cpu" when nil
-- @return the types of the forward pass, of the gradient of the input and of the gradient of the
--   weights; nil for an operator without matrix products
function M.passes(op, compute, device)
  if not op.gemm then return nil end
  local x, theta = op.inputs[1].v.format, op.theta.format
  -- A gradient with several consumers is in binary32: it is an unrounded sum. Where each consumer
  -- has its own channels there is no sum, but with FP(e,m,auto) each part has its own bias shift.
  local shared = op.shared_out and not op.dv.format:find "auto"
  local dy = #op.consumers > 1 and not shared and "fp32" or op.dv.format
  local function product(a, b) return core.compute(a, b, compute, device, op.groups, op.theta.numel) end
  return product(x, theta), product(dy, theta), product(x, dy)
end

--- How a device's library computes the products of each operator, as `--json` prints it.
-- @param products the result of program:products or core.predict_products
-- @return table by operator (its index): list of tables that mptl.json encodes in a fixed order; nil
--   for an operator without products
function M.products_table(products)
  local lists = {}
  for _, p in ipairs(products) do
    lists[p.operator] = lists[p.operator] or json.array {}
    table.insert(lists[p.operator], json.object({ "pass", "type", "engine", "workspace_bytes" },
      { pass = p.pass, type = p.type, engine = p.engine, workspace_bytes = p.workspace_bytes }))
  end
  return lists
end

--- The same for all operators, as text.
-- @param products as in M.products_table
-- @param names names of the operators, by index
-- @return list of lines, the first of them empty; an empty list when there are no products
function M.products_text(products, names)
  local width, lines = 8, {}
  for _, p in ipairs(products) do width = math.max(width, #names[p.operator]) end
  local format = "%-" .. width .. "s %-16s %-12s %12s  %s"
  for _, p in ipairs(products) do
    lines[#lines + 1] = format:format(names[p.operator], p.pass, p.type, ("%.2f"):format(p.workspace_bytes / 1e6), p.engine)
  end
  if #lines > 0 then
    table.move({ "", format:format("operator", "product", "type", "workspace MB", "engine") }, 1, 2, 1,
      table.move(lines, 1, #lines, 3))
  end
  return lines
end

return M
