--- Changes of formats between training steps: promotions by a policy's threshold, then its hook.
local core = require "mptl.core"
local tensors = require "mptl.measure.tensors"

local M = {}

local Adapter = {}
Adapter.__index = Adapter

--- Makes an adapter of a plan. It remembers the formats: make a new one when something else has
-- changed them.
-- @param plan the result of precision.plan
-- @return the adapter
function M.create(plan)
  local self = setmetatable({ plan = plan, tensors = plan.graph:tensors(), formats = {} }, Adapter)
  for i, t in ipairs(self.tensors) do self.formats[i] = t.format end
  return self
end

local function bits(format)
  return core.format(format).bits
end

-- Appends the changes since the last call to a list. Returns how many of them gave a tensor more
-- bits.
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

--- Promotes tensors and calls the policy's hook. Call it after each step.
-- @param program the program that made the step
-- @param at {step =, epoch =, gradient_error =}: numbers of the step and its epoch, from 1;
--   function for the hook (mptl.measure)
-- @return number of promotions: tensors promoted by the threshold, and tensors that the hook gave
--   more bits; list of changes {operator = name, role =, from =, to = formats, cause = "overflow"
--   or "hook"}
function Adapter:after_step(program, at)
  local policy, graph, list, promotions = self.plan.policy, self.plan.graph, {}, 0
  -- The statistics come with formats, so read them before promotions.
  local stats = policy.after_step and tensors.describe(graph, program)
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
