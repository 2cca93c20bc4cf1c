--- Policies that look at operators: uniform, uniform_low, operator, amp (Lee, Sharma, Aiken, TMLR
-- 2023, section 4: pi_unif, pi_op, pi_op').
local M = {}

-- The set of tensors that stay high under operator and amp: v and dv of the input, all tensors of
-- the first GEMM operator, all tensors of the last group's operators, and v and dv of their inputs.
local function ends(graph)
  local high, operators = {}, graph:operators()
  local function keep(op, ...)
    for _, role in ipairs { ... } do
      if op[role] then high[op[role]] = true end
    end
  end
  keep(operators[1], "v", "dv")
  for _, op in ipairs(operators) do
    if op.gemm then
      keep(op, "v", "dv", "theta", "dtheta")
      break
    end
  end
  local last = operators[#operators].group
  for _, op in ipairs(operators) do
    if op.group == last then
      keep(op, "v", "dv", "theta", "dtheta")
      for _, input in ipairs(op.inputs) do keep(input, "v", "dv") end
    end
  end
  return high
end

local function any(list, test)
  for _, x in ipairs(list) do
    if test(x) then return true end
  end
  return false
end

local function feeds_gemm(op)
  return any(op.consumers, function(consumer) return consumer.gemm end)
end

--- Every tensor high: uniform's candidate set has one format only.
function M.uniform(graph)
  for _, tensor in ipairs(graph:tensors()) do tensor:high() end
end

--- Every tensor low.
function M.uniform_low(graph)
  for _, group in ipairs(graph:groups()) do group:demote() end
end

--- pi_op: makes theta, dtheta and dv of every GEMM operator low, and v of every operator with a
-- GEMM operator among its consumers.
function M.operator(graph)
  local high = ends(graph)
  local function low(tensor)
    if not high[tensor] then tensor:low() end
  end
  for _, op in ipairs(graph:operators()) do
    if op.gemm then
      low(op.theta)
      low(op.dtheta)
      low(op.dv)
    end
    if feeds_gemm(op) then low(op.v) end
  end
end

--- pi_op', as in automatic mixed precision: makes all tensors low of every GEMM operator, of every
-- operator with a GEMM operator among its consumers, and of every operator that follows its inputs'
-- type and whose inputs are all low. The tensors of `ends` stay high, and so do operators that
-- follow their type.
function M.amp(graph)
  local high = ends(graph)
  for _, op in ipairs(graph:operators()) do
    local follows = op.follows_inputs and not any(op.inputs, function(input) return not input.v.is_low end)
    if op.gemm or feeds_gemm(op) or follows then
      for _, tensor in ipairs(op:tensors()) do
        if not high[tensor] then tensor:low() end
      end
    end
  end
end

return M
