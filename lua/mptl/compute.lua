--- What convolutions and linear layers multiply in: the narrowest type that is exact for a pass's two operands.
local core = require "mptl.core"
local json = require "mptl.json"

local M = {}

--- The types of an operator's passes.
-- @param op an operator of a described graph (plan.graph)
-- @param compute the setting: "auto", "f32", "narrow", "fp8", "tf32"
-- @param device that computes, "cpu" when nil
-- @return of the forward pass, of the gradient of the input, of the gradient of the weights; nil where there is no matrix product
function M.passes(op, compute, device)
  if not op.gemm then return nil end
  local x, theta = op.inputs[1].v.format, op.theta.format
  -- several gradients are not on one grid: a sum is not rounded, and with FP(e,m,auto) each part has a bias shift of its own
  local shared = op.shared_out and not op.dv.format:find "auto"
  local dy = #op.consumers > 1 and not shared and "fp32" or op.dv.format
  local function product(a, b) return core.compute(a, b, compute, device, op.groups) end
  return product(x, theta), product(dy, theta), product(x, dy)
end

--- How a device's library multiplies for an operator, as `--json` prints it.
-- @param products what program:products or core.predict_products returned
-- @param operator its index
-- @return list of tables that mptl.json encodes in a fixed order; nil where there is nothing
function M.products_table(products, operator)
  local list = {}
  for _, p in ipairs(products) do
    if p.operator == operator then
      list[#list + 1] = json.object({ "pass", "type", "engine", "workspace_bytes" },
        { pass = p.pass, type = p.type, engine = p.engine, workspace_bytes = p.workspace_bytes })
    end
  end
  return #list > 0 and json.array(list) or nil
end

--- The same of all operators, as text.
-- @param products as above
-- @param names of the operators, by index
-- @return lines, of which the first is empty; none where there is nothing
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
