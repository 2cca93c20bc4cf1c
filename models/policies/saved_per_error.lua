-- A trial decides the order. After 200 steps in high precision, the policy makes each group low on
-- its own and computes the gradient error that this adds. Then groups become low until 85 % of all
-- elements are low. The groups that save the most bits for their error come first.
local mptl = require "mptl"

return mptl.precision.policy(function() end, {
  threshold = 0.01,
  time_limit = 600,
  after_step = function(graph, _, at)
    if at.step ~= 200 then return end
    local function error_now() return at.gradient_error(2).gradient.absolute or math.huge end
    local base, worth, groups = error_now(), {}, graph:groups()
    for _, group in ipairs(groups) do
      local bits = graph:ratios().bits_now
      group:demote()
      worth[group] = (bits - graph:ratios().bits_now) / math.max(error_now() - base, 1e-3 * base)
      group:promote()
    end
    table.sort(groups, function(a, b) return worth[a] > worth[b] end)
    for _, group in ipairs(groups) do
      if graph:ratio_lo() >= 0.85 then return end
      group:demote()
    end
  end,
})
