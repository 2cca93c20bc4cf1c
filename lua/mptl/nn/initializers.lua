--- Initial values of parameters: the option init of a layer, for its weight, as in
-- init = nn.init.kaiming_normal { mode = "fan_out" }. An initializer is a function of the
-- parameter's dimensions (in PyTorch's order: outputs first). It returns the distribution's name
-- ("normal", "uniform", "constant") and two numbers, as the engine takes them.
local misuse = require "mptl.misuse"

local M = {}

-- fan_in: the number of inputs that an output depends on. fan_out: the number of outputs that
-- depend on an input.
local function fan(dims, mode)
  local window = 1
  for i = 3, #dims do window = window * dims[i] end
  return window * (mode == "fan_out" and dims[1] or dims[2] or 1)
end

-- Checks options. Returns them, and their mode.
local function check(what, options, accepted)
  options = options or {}
  misuse.check_fields(what, options, accepted)
  local mode = options.mode or "fan_in"
  if mode ~= "fan_in" and mode ~= "fan_out" then
    misuse.raise("%s: mode %s, accepted are fan_in, fan_out", what, tostring(mode))
  end
  return options, mode
end

--- A normal distribution with mean 0 and standard deviation gain / sqrt(fan) (He and others,
-- "Delving deep into rectifiers", 2015).
-- @param options {mode = "fan_in" | "fan_out", gain = sqrt(2)}
-- @return an initializer
-- @usage nn.Conv2d{ 3, 64, kernel = 3, init = nn.init.kaiming_normal{ mode = "fan_out" } }
function M.kaiming_normal(options)
  local mode
  options, mode = check("init.kaiming_normal", options, { "mode", "gain" })
  local gain = options.gain or math.sqrt(2)
  return function(dims) return "normal", 0.0, gain / math.sqrt(fan(dims, mode)) end
end

--- A uniform distribution from -gain * sqrt(3 / fan) to gain * sqrt(3 / fan).
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

--- A normal distribution.
-- @param options {mean = 0, std = 1}
-- @return an initializer
function M.normal(options)
  options = check("init.normal", options, { "mean", "std" })
  return function() return "normal", options.mean or 0.0, options.std or 1.0 end
end

--- A uniform distribution in [from, to).
-- @param options {from = 0, to = 1}
-- @return an initializer
function M.uniform(options)
  options = check("init.uniform", options, { "from", "to" })
  return function() return "uniform", options.from or 0.0, options.to or 1.0 end
end

--- The same value for all elements.
-- @param value the number
-- @return an initializer
function M.constant(value)
  if type(value) ~= "number" then misuse.raise("init.constant: %s, must be a number", tostring(value)) end
  return function() return "constant", value, 0.0 end
end

return M
