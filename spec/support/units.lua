--- Which bf16 units products use with an instruction set.
local core = require "mptl.core"

local M = {}

local units = { avx512_bf16 = "bf16", amx = "amx" }

--- "none", "bf16" (AVX512-BF16) or "amx".
-- @param isa an instruction set's name; the one in use when nil
function M.units(isa) return units[isa or core.isa()] or "none" end

--- Instruction sets of this processor with different units, the narrowest first: the widest without such units comes first.
function M.isas()
  local list = { "" }
  for _, isa in ipairs(core.isas()) do
    if units[isa] then list[#list + 1] = isa else list[1] = isa end
  end
  return list
end

return M
