--- What the last step of a program did to each tensor: counts of its rounding and, if it counted them, exponents.
local json = require "mptl.json"

local M = {}

local fields = {
  "step", "epoch", "operator", "role", "format", "shifts", "elements", "underflow", "overflow", "inf", "nan", "max",
  "exponents",
}
local exponent_fields = { "first", "counts", "zeros" }

local roles = { "v", "dv", "theta", "dtheta" }

--- The tensors that the last step computed, in execution order. Call it before the assignment changes: formats are those of now.
-- Rounding to binary32 does not look at the values: inf, nan and max are nil there, unless exponents were counted.
-- @param graph the described graph
-- @param program of it
-- @return list of {operator = name, role =, format =, shifts = list or nil, elements =, underflow =, overflow =, inf =, nan =,
--   max =, exponents = {first =, counts =, zeros =} or nil}; shifts: those that FP(e,m,auto) took, one for each rounding
-- @usage for _, t in ipairs(mptl.measure.tensors(plan.graph, program)) do print(t.operator, t.role, t.overflow / t.elements) end
function M.describe(graph, program)
  local list, exponents = {}, program:exponents()
  for i, s in ipairs(program:stats()) do
    local op, e = graph:operator(s.operator), exponents and exponents[i]
    local record = {
      operator = op.name, role = s.role, format = op[s.role].format,
      shifts = s.shifts, elements = s.elements, underflow = s.underflow, overflow = s.overflow,
    }
    if e then
      record.inf, record.nan, record.max = e.inf, e.nan, e.max_abs
      record.exponents = { first = e.first, counts = e.counts, zeros = e.zeros }
    elseif record.format ~= "fp32" then
      record.inf, record.nan, record.max = s.inf_in, s.nan_in, s.max_abs
    end
    list[i] = record
  end
  return list
end

--- A tensor's line of tensors.jsonl.
-- @param step from 1
-- @param epoch from 1
-- @param record of M.describe's list
-- @return the text
function M.line(step, epoch, record)
  local line = { step = step, epoch = epoch }
  for key, value in pairs(record) do line[key] = value end
  for _, field in ipairs { "inf", "nan", "max" } do
    if line[field] == nil then line[field] = json.null end
  end
  if record.shifts then line.shifts = json.array(record.shifts) end
  if record.exponents then
    line.exponents = json.object(exponent_fields, {
      first = record.exponents.first, counts = json.array(record.exponents.counts), zeros = record.exponents.zeros,
    })
  end
  return json.encode(json.object(fields, line))
end

--- Whether a tag of TensorBoard is one of M.scalars, whose steps are those of the training; all others count epochs.
-- @param tag the tag
-- @return true or false
function M.is_tag(tag)
  return tag:find "^%l+flow_largest/" ~= nil
end

--- The three tensors that overflowed most in the last step of a program: of which the largest share overflowed, or came in as
-- infinity or NaN; the backward ones, which decide whether a step is applied, first.
-- @param graph the described graph
-- @param program of it
-- @return list of text, "dv of conv1 (FP(5,2,0), 12.5 %)"
function M.overflows(graph, program)
  local list, told = {}, {}
  for _, s in ipairs(program:stats()) do
    local lost = s.overflow + s.inf_in + s.nan_in
    if lost > 0 then
      local backward = s.role == "dv" or s.role == "dtheta"
      list[#list + 1] = { place = #list, operator = s.operator, role = s.role, backward = backward, share = lost / s.elements }
    end
  end
  table.sort(list, function(a, b)
    if a.backward ~= b.backward then return a.backward end
    return a.share > b.share or (a.share == b.share and a.place < b.place)
  end)
  for i = 1, math.min(#list, 3) do
    local op = graph:operator(list[i].operator)
    told[i] = ("%s of %s (%s, %.3g %%)"):format(list[i].role, op.name, op[list[i].role].format, 100 * list[i].share)
  end
  return told
end

--- A step in a few numbers: the largest share of a tensor that overflowed, and that underflowed, by role.
-- @param list of M.describe
-- @return list of {tag, value}, for TensorBoard
function M.scalars(list)
  local scalars = {}
  for _, what in ipairs { "overflow", "underflow" } do
    local largest = {}
    for _, record in ipairs(list) do
      largest[record.role] = math.max(largest[record.role] or 0, record[what] / record.elements)
    end
    for _, role in ipairs(roles) do scalars[#scalars + 1] = { ("%s_largest/%s"):format(what, role), largest[role] } end
  end
  return scalars
end

return M
