-- Every operation on the files of a run fails, in every way; runs are stopped again and again; every
-- allocation fails.

-- All allocations that a small network needs; of later ones, should there be more one day, a sample.
local function pick(at)
  return at <= 2000 or at % 101 == 0
end

require "support.faults_suite"(_ENV, {
  operations = function() return function() return true end end,
  sweeps = function(count)
    local cases = {}
    for _, kind in ipairs { "ENOSPC", "EIO", "full" } do
      for at = 1, count do cases[#cases + 1] = { kind, at } end
    end
    return cases
  end,
  stops = 1000,
  most = math.huge,
  allocations = pick,
  command_allocations = pick,
})
