-- Training begins in high precision. After every hundredth step the policy demotes groups, largest
-- first, until the share of low elements reaches a goal. The goal grows from 0 in the first epoch
-- to 0.9 in the sixth.
local mptl = require "mptl"

return mptl.precision.policy(function() end, {
  threshold = 0.01,
  after_step = function(graph, _, at)
    local due = 0.9 * math.min(1, (at.epoch - 1) / 5)
    if at.step % 100 ~= 0 or graph:ratio_lo() >= due or at.epoch > 6 then return end
    local groups = graph:groups()
    table.sort(groups, function(a, b) return a.numel > b.numel end)
    for _, group in ipairs(groups) do
      if graph:ratio_lo() >= due then return end
      if not group.low then group:demote() end
    end
  end,
})
