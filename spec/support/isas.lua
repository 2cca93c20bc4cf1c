--- The instruction sets that this machine has kernels for, by name.
local core = require "mptl.core"

local M = {}

for _, isa in ipairs { "scalar", "avx2", "avx512" } do
  if pcall(core.isa, isa) then M[#M + 1] = isa end
end
core.isa "auto"

return M
