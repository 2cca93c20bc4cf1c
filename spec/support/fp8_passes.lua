-- usage: lua fp8_passes.lua SETTING...    prints the types in which the device "cuda" multiplies: a line for each setting, with
-- e4m3 x e4m3, e5m2 x e4m3, e4m3 x e5m2, e4m3 x e4m3 in 16 groups, FP(4,3,4) x FP(4,3,4), FP(6,9,0) x e4m3
local core = require "mptl.core"

local device = core.device "cuda"
for _, setting in ipairs(arg) do
  local function product(a, b, groups) return core.compute(a, b, setting, device, groups) end
  print(setting .. ": " .. table.concat({
    product("fp8_e4m3fn", "fp8_e4m3fn"), product("fp8_e5m2", "fp8_e4m3fn"), product("fp8_e4m3fn", "fp8_e5m2"),
    product("fp8_e4m3fn", "fp8_e4m3fn", 16), product("FP(4,3,4)", "FP(4,3,4)"), product("FP(6,9,0)", "fp8_e4m3fn"),
  }, " "))
end
