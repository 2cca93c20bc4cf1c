--- Optimizers, as settings: the arithmetic is in the engine (mptl_model_update), on the binary32 masters.
local misuse = require "mptl.misuse"

local M = {}

local Optimizer = {}
Optimizer.__index = Optimizer

local defaults = { lr = 0.1, momentum = 0.9, weight_decay = 5e-4 }

local function check_number(name, value, least, below)
  if type(value) ~= "number" or not (value >= least and value < below) then
    misuse.raise("optim.sgd: %s = %s, must be a number of at least %g%s", name, tostring(value), least,
      below < math.huge and (" and below %g"):format(below) or "")
  end
end

--- Stochastic gradient descent with momentum, not Nesterov: g = grad + weight_decay p; buf = momentum buf + g (first update: g);
-- p -= lr buf. Every parameter is decayed.
-- @param settings {lr = 0.1, momentum = 0.9, weight_decay = 5e-4}: these are the defaults
-- @return the optimizer
-- @usage mptl.optim.sgd{ lr = 0.05 }
function M.sgd(settings)
  settings = settings or {}
  misuse.check_fields("optim.sgd", settings, { "lr", "momentum", "weight_decay" })
  local self = setmetatable({ name = "sgd" }, Optimizer)
  for name, default in pairs(defaults) do
    self[name] = settings[name] == nil and default or settings[name]
  end
  check_number("lr", self.lr, 0, math.huge)
  check_number("momentum", self.momentum, 0, 1)
  check_number("weight_decay", self.weight_decay, 0, math.huge)
  return self
end

--- The value if it is an optimizer, else an error.
-- @param value what a script gave
-- @return the optimizer
function M.check(value)
  if getmetatable(value) == Optimizer then return value end
  misuse.raise("optimizer: %s, must be made by mptl.optim.sgd", type(value))
end

return M
