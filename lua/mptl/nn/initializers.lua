--- How parameters start: `init = nn.init.kaiming_normal{ mode = "fan_out" }` of a layer, for its weight.
-- An initializer is a function of the parameter's dimensions (PyTorch's order: outputs first) that returns what the engine
-- takes: a kind ("normal", "uniform", "constant") and its two numbers.
local misuse = require "mptl.misuse"

local M = {}

-- Number of inputs, or outputs, that one element of the weight's other side sees.
local function fan(dims, mode)
  local receptive = 1
  for i = 3, #dims do receptive = receptive * dims[i] end
  return receptive * (mode == "fan_out" and dims[1] or dims[2] or 1)
end

local function check(what, options, accepted)
  options = options or {}
  misuse.check_fields(what, options, accepted)
  local mode = options.mode or "fan_in"
  if mode ~= "fan_in" and mode ~= "fan_out" then
    misuse.raise("%s: mode %s, accepted are fan_in, fan_out", what, tostring(mode))
  end
  return options, mode
end

--- Normal with mean 0 and standard deviation gain / sqrt(fan) (He et al. 2015).
-- @param options {mode = "fan_in" | "fan_out", gain = sqrt(2)}
-- @return an initializer
-- @usage nn.Conv2d{ 3, 64, kernel = 3, init = nn.init.kaiming_normal{ mode = "fan_out" } }
function M.kaiming_normal(options)
  local mode
  options, mode = check("init.kaiming_normal", options, { "mode", "gain" })
  local gain = options.gain or math.sqrt(2)
  return function(dims) return "normal", 0.0, gain / math.sqrt(fan(dims, mode)) end
end

--- Uniform in +-gain * sqrt(3 / fan).
-- @param options {mode = "fan_in" | "fan_out", gain = sqrt(2)}
-- @return an initializer
function M.kaiming_uniform(options)
  local mode
  options, mode = check("init.kaiming_uniform", options, { "mode", "gain" })
  local gain = options.gain or math.sqrt(2)
  return function(dims)
    local bound = gain * math.sqrt(3 / fan(dims, mode))
    return "uniform", -bound, bound
  end
end

--- Normal.
-- @param options {mean = 0, std = 1}
-- @return an initializer
function M.normal(options)
  options = check("init.normal", options, { "mean", "std" })
  return function() return "normal", options.mean or 0.0, options.std or 1.0 end
end

--- Uniform in [from, to).
-- @param options {from = 0, to = 1}
-- @return an initializer
function M.uniform(options)
  options = check("init.uniform", options, { "from", "to" })
  return function() return "uniform", options.from or 0.0, options.to or 1.0 end
end

--- One value for all elements.
-- @param value the number
-- @return an initializer
function M.constant(value)
  if type(value) ~= "number" then misuse.raise("init.constant: %s, must be a number", tostring(value)) end
  return function() return "constant", value, 0.0 end
end

return M
