--- What convolutions and linear layers multiply in: the narrowest type that is exact for a pass's two operands.
local core = require "mptl.core"

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

return M
