--- mptl.nn: layers, modules and models in the manner of PyTorch, recorded once into a graph of the engine.
-- @usage
-- local nn = require "mptl.nn"
-- local Block = nn.Module("Block")
-- function Block:init(width)
--   self.conv = nn.Conv2d{ width, width, kernel = 3, padding = 1, bias = false }
--   self.bn = nn.BatchNorm2d(width)
-- end
-- function Block:forward(x) return nn.relu(self.bn(self.conv(x)) + x) end
local layers = require "mptl.nn.layers"
local Module = require "mptl.nn.module"
local Recorder = require "mptl.nn.recorder"
local Value = require "mptl.nn.value"

local M = {
  Module = Module.class,
  is_module = Module.is,
  children = Module.children,
  is_value = Value.is,
  init = require "mptl.nn.initializers",
  record = Recorder.record,
}
for name, layer in pairs(layers) do M[name] = layer end

--- The nearest multiple of divisor, at least divisor, and never below 0.9 width (MobileNet's rule for scaled widths).
-- @param width a number
-- @param divisor a whole number
-- @return a whole number
-- @usage nn.divisible(64 * 0.25, 4) --> 16
function M.divisible(width, divisor)
  local n = math.max(divisor, math.floor((width + divisor / 2) / divisor) * divisor)
  if n < 0.9 * width then n = n + divisor end
  return math.tointeger(n)
end

return M
