--- Changes of formats between two training steps: promotions by a policy's threshold, then its hook.
local core = require "mptl.core"
local tensors = require "mptl.measure.tensors"

local M = {}

local Adapter = {}
Adapter.__index = Adapter

--- What adapts a plan. It remembers the formats: make it anew when others than itself change them.
-- @param plan as precision.plan returned it
-- @return the adapter
function M.create(plan)
  local self = setmetatable({ plan = plan, tensors = plan.graph:tensors(), formats = {} }, Adapter)
  for i, t in ipairs(self.tensors) do self.formats[i] = t.format end
  return self
end

local function bits(format)
  return core.format(format).bits
end

-- The changes since the formats were looked at last. Returns how many of them gave a tensor more bits.
local function note(self, list, cause)
  local promoted = 0
  for i, t in ipairs(self.tensors) do
    local from, to = self.formats[i], t.format
    if from ~= to then
      list[#list + 1] = { operator = t.operator.name, role = t.role, from = from, to = to, cause = cause }
      self.formats[i] = to
      if bits(to) > bits(from) then promoted = promoted + 1 end
    end
  end
  return promoted
end

--- To be called after a step.
-- @param program that made it
-- @param at {step =, epoch =, gradient_error =}: which step that was, both from 1; what the hook measures with (mptl.measure)
-- @return number of promotions: tensors promoted by the threshold, and those that the hook gave more bits; list
--   of the changes {operator = name, role =, from =, to = formats, cause = "overflow" or "hook"}
function Adapter:after_step(program, at)
  local policy, graph, list, promotions = self.plan.policy, self.plan.graph, {}, 0
  local stats = policy.after_step and tensors.describe(graph, program) -- with the formats that the step had
  if policy.threshold then
    promotions = #program:promote(policy.threshold)
    if promotions > 0 then note(self, list, "overflow") end
  end
  if policy.after_step then
    local before = graph:changes()
    policy:limited(policy.after_step, graph, stats, at)
    if graph:changes() > before then promotions = promotions + note(self, list, "hook") end
  end
  return promotions, list
end

return M
