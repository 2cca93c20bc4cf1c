--- mptl.precision: policies, which choose the format of every tensor of training. A policy is a
-- function (graph, C, options) that makes groups or tensors of the described graph (described.lua)
-- low; before the call all are high. The built-in policies (rules.lua, by_group.lua) use the same
-- API as scripts.
-- @usage
-- precision = mptl.precision.demotion{ formats = "hfp8", ratio = 0.5, threshold = 0.01 }
-- precision = mptl.precision.policy(function(graph, C)
--   for _, g in ipairs(graph:groups()) do
--     if graph:ratio_lo() >= 0.6 then break end
--     if g.index ~= 0 then g:demote() end
--   end
-- end, { threshold = 0.01 })
local core = require "mptl.core"
local by_group = require "mptl.precision.by_group"
local candidates = require "mptl.precision.candidates"
local described = require "mptl.precision.described"
local misuse = require "mptl.misuse"
local rules = require "mptl.precision.rules"

local M = {
  presets = candidates.presets,
  candidates = candidates.resolve,
  describe = described.describe,
}

local Policy = {} -- methods

local policy_mt = misuse.strict("policy", Policy, {}, {
  "name", "choose", "options", "accepted", "candidates", "formats", "ratio", "threshold", "after_step",
})

function policy_mt:__tostring()
  local parts = {}
  for _, name in ipairs { "format", "ratio", "k", "threshold" } do
    if self.options[name] ~= nil then parts[#parts + 1] = ("%s=%s"):format(name, tostring(self.options[name])) end
  end
  return #parts == 0 and self.name or ("%s(%s)"):format(self.name, table.concat(parts, ", "))
end

--- Calls a function of the policy. If it does not return within the policy's time_limit, raises an
-- error at the line that it has reached.
-- @param f the function
-- @param ... its arguments
function Policy:limited(f, ...)
  local limit = self.options.time_limit or 60
  local latest = core.time() + limit
  local function check()
    if core.time() <= latest or debug.getinfo(2, "f").func == Policy.limited then return end
    -- A pcall in the policy may catch the error: raise it again at every instruction.
    debug.sethook(check, "", 1)
    misuse.raise("policy %s: has not returned after %g s; accepted is a longer time_limit", self.name, limit)
  end
  debug.sethook(check, "", 100000)
  local ok, message = pcall(f, ...)
  debug.sethook()
  if not ok then error(message, 0) end
end

-- What each option accepts.
local checks = {
  ratio = function(v) return type(v) == "number" and v >= 0 and v <= 1, "0 to 1" end,
  r_max = function(v) return type(v) == "number" and v >= 0 and v <= 1, "0 to 1" end,
  threshold = function(v)
    return v == false or (type(v) == "number" and v > 0 and v <= 1), "above 0 to 1, or false for no promotion"
  end,
  k = function(v) return math.type(v) == "integer" and v >= 0, "whole numbers from 0" end,
  seed = function(v) return math.type(v) == "integer", "whole numbers" end,
  after_step = function(v) return type(v) == "function", "a function (graph, stats, at)" end,
  time_limit = function(v) return type(v) == "number" and v > 0, "seconds above 0" end,
}

local function make(name, choose, options, accepted)
  options = options or {}
  if type(options) ~= "table" then misuse.raise("%s: options of type %s, must be a table", name, type(options)) end
  misuse.check_fields(name, options, accepted)
  local C = candidates.resolve(options.formats or "hfp8")
  for option, check in pairs(checks) do
    if options[option] ~= nil then
      local ok, accepts = check(options[option])
      if not ok then misuse.raise("%s: %s %s, accepted are %s", name, option, tostring(options[option]), accepts) end
    end
  end
  return misuse.object(policy_mt, {
    name = name, choose = choose, options = misuse.read_only("policy.options", options), accepted = accepted, candidates = C,
    formats = type(options.formats or "hfp8") == "string" and (options.formats or "hfp8") or "custom",
    ratio = options.ratio, threshold = options.threshold or nil, after_step = options.after_step,
  })
end

-- The built-in policies: function, accepted options, defaults.
local built_in = {
  uniform_low = { rules.uniform_low, { "formats", "threshold" }, {} },
  operator = { rules.operator, { "formats", "threshold" }, {} },
  amp = { rules.amp, { "formats", "threshold" }, {} },
  demotion = { by_group.demotion, { "formats", "threshold", "ratio" }, { ratio = 0.5, threshold = 0.01 } },
  increasing = { by_group.increasing, { "formats", "threshold", "ratio" }, { ratio = 0.5, threshold = 0.01 } },
  random = { by_group.random, { "formats", "threshold", "ratio", "r_max", "seed" }, { ratio = 0.5, threshold = 0.01 } },
  top_k = { by_group.top_k, { "formats", "threshold", "k" }, { k = 1, threshold = 0.01 } },
}

local function with_defaults(options, defaults)
  local result = {}
  for key, value in pairs(defaults) do result[key] = value end
  for key, value in pairs(options or {}) do result[key] = value end
  return result
end

for name, row in pairs(built_in) do
  M[name] = function(options)
    if options ~= nil and type(options) ~= "table" then
      misuse.raise("%s: %s, must be a table of options", name, tostring(options))
    end
    return make(name, row[1], with_defaults(options, row[3]), row[2])
  end
end

--- Every tensor in one format, which is both the high and the low candidate: so both ratios are 0.
-- @param format as "fp32", "FP(6,9,0)"
-- @return a policy
function M.uniform(format)
  if type(format) ~= "string" then
    misuse.raise("uniform: format %s, must be a string such as \"FP(6,9,0)\"", tostring(format))
  end
  local policy = make("uniform", rules.uniform, { formats = { high = format, low = format } }, { "formats" })
  local values = misuse.values(policy)
  values.options, values.accepted, values.formats = { format = format }, { "format" }, format
  if format == "fp32" then values.name, values.options = "fp32", {} end
  return policy
end

--- The baseline: every tensor in binary32.
-- @return a policy
function M.fp32()
  return M.uniform("fp32")
end

--- Makes a policy from a function.
-- @param choose function (graph, C, options): makes groups and tensors of the described graph low
-- @param options {after_step = function (graph, stats, at), a hook, which may change formats after
--   each training step; time_limit = seconds within which both functions must return (60); formats
--   =, threshold =, ratio =, k =, seed =, r_max =, name =}. stats: the result of
--   mptl.measure.tensors. at: {step =, epoch = (both from 1), gradient_error =};
--   at.gradient_error(batches) computes how far the gradient in the current formats is from
--   binary32's. --resume does not restore the hook's variables
-- @return a policy
function M.policy(choose, options)
  if type(choose) ~= "function" then misuse.raise("precision.policy: %s, must be a function (graph, C)", type(choose)) end
  local policy = make("policy", choose, options, {
    "after_step", "formats", "threshold", "ratio", "r_max", "k", "seed", "name", "time_limit",
  })
  if policy.options.name then misuse.values(policy).name = policy.options.name end
  return policy
end

--- Usage lines of the built-in policies, for help().
M.help = {
  fp32 = "precision.fp32(): every tensor in binary32, the baseline",
  uniform = 'precision.uniform "FP(6,9,0)": every tensor in one format',
  uniform_low = 'precision.uniform_low{ formats = "hfp8" }: every tensor low',
  operator = 'precision.operator{ formats = "hfp8" }: the operands of convolutions and linear layers '
    .. 'low, in all passes',
  amp = 'precision.amp{ formats = "hfp8" }: as automatic mixed precision: their outputs low, too, and '
    .. 'operators that follow low inputs',
  demotion = 'precision.demotion{ formats = "hfp8", ratio = 0.5, threshold = 0.01 }: the largest '
    .. 'groups low, until that share of the elements is low',
  increasing = "precision.increasing{ ratio = 0.5 }: as demotion, the smallest groups first",
  random = "precision.random{ ratio = 0.5, r_max = 0.55, seed = 1 }: as demotion, in random order",
  top_k = "precision.top_k{ k = 3 }: the k largest groups low",
}

--- Names of the built-in policies.
M.names = { "fp32", "uniform_low", "operator", "amp", "demotion", "increasing", "random", "top_k" }

--- Whether a policy promotes tensors unless it is told not to.
-- @param name name of a policy
-- @return true or false; nil for unknown names
function M.promotes(name)
  if name == "fp32" or name == "uniform" then return false end
  local row = built_in[name]
  return row and row[3].threshold ~= nil
end

--- Whether a value is a policy.
-- @param x the value
-- @return true or false
function M.is_policy(x)
  return getmetatable(x) == policy_mt
end

--- Whether a policy has an option of this name.
-- @param policy a policy
-- @param option its name
-- @return true or false
function M.accepts(policy, option)
  for _, name in ipairs(policy.accepted) do
    if name == option then return true end
  end
  return false
end

--- The policy with some options replaced.
-- @param policy a policy
-- @param overrides table of options
-- @return a policy
function M.with(policy, overrides)
  if next(overrides) == nil then return policy end
  if policy.name == "fp32" or policy.name == "uniform" then
    misuse.check_fields(policy.name, overrides, {})
  end
  return make(policy.name, policy.choose, with_defaults(overrides, policy.options), policy.accepted)
end

--- A policy by name, or from a file that returns a policy or its function.
-- @param name one of M.names, or FILE.lua
-- @return a policy
function M.named(name)
  if M[name] and built_in[name] or name == "fp32" then return M[name]() end
  if not name:match("%.lua$") then
    misuse.raise("policy: %s, accepted are %s, FILE.lua%s", name, table.concat(M.names, ", "), misuse.suggest(name, M.names))
  end
  local file, message = core.open(name) -- refuses pipes, for which loadfile would wait
  if not file then error(message, 0) end
  file:close()
  local chunk
  chunk, message = loadfile(name, "t")
  if not chunk then error(message, 0) end
  local ok, result = pcall(chunk)
  -- A tail call, `return mptl.precision.policy(...)`, leaves no line of the file on the stack.
  if not ok then
    local names_file = type(result) ~= "string" or result:find(name, 1, true)
    error(names_file and result or ("%s: %s"):format(name, result), 0)
  end
  if type(result) == "function" then result = M.policy(result) end
  if not M.is_policy(result) then
    error(("%s: returned a %s, must return mptl.precision.policy(function(graph, C) ... end)"):format(name, type(result)), 0)
  end
  if result.name == "policy" then misuse.values(result).name = name:match("([^/]+)%.lua$") end
  return result
end

--- Applies a policy to a graph.
-- @param policy a policy
-- @param graph the engine's graph
-- @param batch the training's batch size, for which elements are counted
-- @return {assignment =, graph = described graph, order = demoted groups, policy =, batch =}
-- @usage local plan = mptl.precision.plan(mptl.precision.demotion{ ratio = 0.3 }, graph, 128)
function M.plan(policy, graph, batch)
  local C = policy.candidates
  local assignment = misuse.call(core.assignment, graph, batch, C)
  local view = described.describe(graph, assignment)
  policy:limited(policy.choose, view, misuse.read_only("C", C, "formats = {high =, low =} among the policy's options"),
    policy.options)
  return { assignment = assignment, graph = view, order = view:order(), policy = policy, batch = batch }
end

return M
