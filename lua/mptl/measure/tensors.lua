--- What the last step of a program did to each tensor: statistics of its rounding and, if the step
-- counted them, exponents.
local json = require "mptl.json"

local M = {}

local fields = {
  "step", "epoch", "operator", "role", "format", "shifts", "elements", "underflow", "overflow", "inf", "nan", "max",
  "exponents",
}
local exponent_fields = { "first", "counts", "zeros" }

local roles = { "v", "dv", "theta", "dtheta" }

--- The tensors that the last step computed, in execution order. Call it before the assignment
-- changes, since it reads the formats there. Rounding to binary32 does not look at the values: then
-- inf, nan and max are nil, unless exponents were counted.
-- @param graph the described graph
-- @param program a program of this graph
-- @return list of {operator = name, role =, format =, shifts = list or nil, elements =, underflow
--   =, overflow =, inf =, nan =, max =, exponents = {first =, counts =, zeros =} or nil}. shifts:
--   the bias shifts that FP(e,m,auto) took, one for each rounding
-- @usage for _, t in ipairs(mptl.measure.tensors(plan.graph, program)) do print(t.operator, t.role, t.overflow / t.elements) end
function M.describe(graph, program)
  local list, exponents = {}, program:exponents()
  for i, s in ipairs(program:stats()) do
    local op, e = graph:operator(s.operator), exponents and exponents[i]
    local tensor = {
      operator = op.name, role = s.role, format = op[s.role].format,
      shifts = s.shifts, elements = s.elements, underflow = s.underflow, overflow = s.overflow,
    }
    if e then
      tensor.inf, tensor.nan, tensor.max = e.inf, e.nan, e.max_abs
      tensor.exponents = { first = e.first, counts = e.counts, zeros = e.zeros }
    elseif tensor.format ~= "fp32" then
      tensor.inf, tensor.nan, tensor.max = s.inf_in, s.nan_in, s.max_abs
    end
    list[i] = tensor
  end
  return list
end

--- A tensor's line of tensors.jsonl.
-- @param step number of the step, from 1
-- @param epoch number of the epoch, from 1
-- @param tensor an entry of M.describe's list
-- @return the line, without its end
function M.line(step, epoch, tensor)
  local line = { step = step, epoch = epoch }
  for key, value in pairs(tensor) do line[key] = value end
  for _, field in ipairs { "inf", "nan", "max" } do
    if line[field] == nil then line[field] = json.null end
  end
  if tensor.shifts then line.shifts = json.array(tensor.shifts) end
  if tensor.exponents then
    line.exponents = json.object(exponent_fields, {
      first = tensor.exponents.first, counts = json.array(tensor.exponents.counts), zeros = tensor.exponents.zeros,
    })
  end
  return json.encode(json.object(fields, line))
end

--- Whether a tag of TensorBoard is from M.scalars, and its steps are training steps. The steps of
-- all other tags are epochs.
-- @param tag the tag
-- @return true or false
function M.is_tag(tag)
  return tag:find "^%l+flow_largest/" ~= nil
end

--- The three tensors that overflowed most in the last step of a program, by the share of values
-- that overflowed or were infinite or NaN before rounding. Backward tensors come first: they decide
-- whether the step is skipped.
-- @param graph the described graph
-- @param program a program of this graph
-- @return list of text, "dv of conv1 (FP(5,2,0), 12.5 %)"
function M.overflows(graph, program)
  local list, texts = {}, {}
  for _, s in ipairs(program:stats()) do
    local lost = s.overflow + s.inf_in + s.nan_in
    if lost > 0 then
      local backward = s.role == "dv" or s.role == "dtheta"
      list[#list + 1] = { index = #list, operator = s.operator, role = s.role, backward = backward, share = lost / s.elements }
    end
  end
  table.sort(list, function(a, b)
    if a.backward ~= b.backward then return a.backward end
    return a.share > b.share or (a.share == b.share and a.index < b.index)
  end)
  for i = 1, math.min(#list, 3) do
    local op = graph:operator(list[i].operator)
    texts[i] = ("%s of %s (%s, %.3g %%)"):format(list[i].role, op.name, op[list[i].role].format, 100 * list[i].share)
  end
  return texts
end

--- A step in a few numbers: for each role the largest share of a tensor that overflowed, and the
-- largest share that underflowed.
-- @param list the result of M.describe
-- @return list of {tag, value}, for TensorBoard
function M.scalars(list)
  local scalars = {}
  for _, what in ipairs { "overflow", "underflow" } do
    local largest = {}
    for _, tensor in ipairs(list) do
      largest[tensor.role] = math.max(largest[tensor.role] or 0, tensor[what] / tensor.elements)
    end
    for _, role in ipairs(roles) do scalars[#scalars + 1] = { ("%s_largest/%s"):format(what, role), largest[role] } end
  end
  return scalars
end

return M
