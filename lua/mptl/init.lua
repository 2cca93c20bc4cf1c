--- mptl: training with low-precision floating-point assignments.
-- `local mptl = require "mptl"` works in a stock Lua 5.4 and in the program `mptl`. A part, such as
-- mptl.nn, is the file lua/mptl/NAME.lua and is loaded when it is first used.
local core = require "mptl.core"

local M = {
  version = "0.1.0",
  core = core,
  tensor = core.tensor,
}

--- Names of the parts, for help and completion.
M.parts = {
  "format", "round", "nn", "precision", "optim", "schedule", "loss_scale", "data", "script", "train", "measure", "checkpoint",
  "json",
}

return setmetatable(M, {
  __index = function(self, name)
    if type(name) ~= "string" or not package.searchpath("mptl." .. name, package.path) then return nil end
    local part = require("mptl." .. name)
    rawset(self, name, part)
    return part
  end,
})
