-- Training begins in high precision; at the end of each hundredth step groups are demoted, largest first, until the share that is
-- due: 0 at first, 0.9 from the sixth epoch on.
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
