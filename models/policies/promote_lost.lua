-- All tensors are low at first. Every 100 steps, a tensor becomes high if rounding lost more than a
-- hundredth of its values: they became zero, or were beyond the largest value. This is the paper's
-- promotion, except that underflow counts, too.
local mptl = require "mptl"

return mptl.precision.policy(function(graph)
  for _, group in ipairs(graph:groups()) do group:demote() end
end, {
  after_step = function(graph, stats, at)
    if at.step % 100 ~= 0 then return end
    for _, s in ipairs(stats) do
      local tensor = graph:operator(s.operator)[s.role]
      if tensor.is_low and s.underflow + s.overflow > 0.01 * s.elements then tensor:high() end
    end
  end,
})
