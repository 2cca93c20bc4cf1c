--- mptl.nn: layers, modules and networks as in PyTorch. A network is recorded once, as a graph of
-- the engine.
-- @usage
-- local nn = require "mptl.nn"
-- local Block = nn.Module("Block")
-- function Block:init(width)
--   self.conv = nn.Conv2d{ width, width, kernel = 3, padding = 1, bias = false }
--   self.bn = nn.BatchNorm2d(width)
-- end
-- function Block:forward(x) return nn.relu(self.bn(self.conv(x)) + x) end
local blocks = require "mptl.nn.blocks"
local functional = require "mptl.nn.functional"
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
for _, part in ipairs { layers, functional, blocks } do
  for name, value in pairs(part) do M[name] = value end
end

return M
