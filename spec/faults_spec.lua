-- Files and memory that fail: a sample of what spec/long/faults_spec.lua tries.
local faults = require "support.faults"

require "support.faults_suite"(_ENV, {
  -- Of each quarter of the operations one, another one for each kind of fault.
  operations = function(index, count)
    local every = count // 4
    return function(at) return at % every == (index - 1) * every // #faults.kinds end
  end,
  sweeps = function(count)
    local cases = {}
    for at = 1, count, count // 4 do cases[#cases + 1] = { "EIO", at } end
    return cases
  end,
  stops = 4,
  most = 5,
  allocations = function(at, count) return at % 29 == 0 or at == 1 or at == count end,
  command_allocations = function(at, count, command)
    return at % (command:find "^bench" and 37 or 13) == 0 or at == count
  end,
})
