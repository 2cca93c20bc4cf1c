--- Policies that demote whole groups until a share of the elements is low (Lee, Sharma, Aiken, TMLR
-- 2023, Algorithm 1, and the other orders that the paper compares).
local misuse = require "mptl.misuse"

local M = {}

-- Demotes groups in the given order while the ratio is below r.
local function demote_until(graph, groups, r)
  for _, group in ipairs(groups) do
    if graph:ratio_lo() >= r then return end
    group:demote()
  end
end

local function sorted(graph, before)
  local groups = graph:groups()
  table.sort(groups, function(a, b)
    if a.numel == b.numel then return a.index < b.index end
    return before(a.numel, b.numel)
  end)
  return groups
end

local function larger(a, b)
  return a > b
end

--- Algorithm 1: groups in decreasing size, ties by index.
function M.demotion(graph, _, options)
  demote_until(graph, sorted(graph, larger), options.ratio)
end

--- Groups in increasing size, ties by index.
function M.increasing(graph, _, options)
  demote_until(graph, sorted(graph, function(a, b) return a < b end), options.ratio)
end

--- The k largest groups.
function M.top_k(graph, _, options)
  local groups = sorted(graph, larger)
  if options.k > #groups then misuse.raise("top_k: k %d, the graph has %d groups", options.k, #groups) end
  for i = 1, options.k do groups[i]:demote() end
end

-- SplitMix64 (Steele, Lea, Flood 2014), so that the order depends on the seed alone, and not on
-- Lua's generator.
local function generator(seed)
  local state = seed
  return function(n) -- a whole number from 1 to n
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    return ((z ~ (z >> 31)) >> 11) % n + 1
  end
end

local draws = 1000

--- Groups in random order. Draws another order, up to 1000 times, until ratio_lo is within [r,
-- r_max].
function M.random(graph, _, options)
  local r, r_max, draw = options.ratio, options.r_max or math.min(1, options.ratio + 0.05), generator(options.seed or 1)
  if r_max < r then misuse.raise("random: r_max %g, must not be below the ratio %g", r_max, r) end
  local closest = math.huge
  for _ = 1, draws do
    local groups = graph:groups()
    for i = #groups, 2, -1 do
      local j = draw(i)
      groups[i], groups[j] = groups[j], groups[i]
    end
    demote_until(graph, groups, r)
    local reached = graph:ratio_lo()
    if reached <= r_max then return end
    closest = math.min(closest, reached)
    for _, index in ipairs(graph:order()) do graph:group(index):promote() end
  end
  misuse.raise("random: none of %d orders gives a ratio from %g to %g, the closest gives %.4f; accepted is a larger r_max",
    draws, r, r_max, closest)
end

return M
