--- Which bf16 units products of this process may use: "none", "bf16" (AVX512-BF16) or "amx". Found from the processor's features
-- (core.cpu), since specs compare the engine's choice with it.
local core = require "mptl.core"

local M = {}

--- Values of ONEDNN_MAX_CPU_ISA, with which oneDNN uses no instructions beyond the named ones.
M.limits = { "AVX2", "AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE_AMX" }
local allows = { "none", "none", "bf16", "amx" }
local order = { none = 0, bf16 = 1, amx = 2 }

local function processor()
  if core.backends()[1].version == "none" then return "none" end -- built without oneDNN
  local has = core.cpu().features
  if not (has.avx512_bf16 and has.avx512bw and has.avx512dq and has.avx512vl) then return "none" end
  return has.amx_tile and has.amx_bf16 and has.amx_int8 and "amx" or "bf16"
end

--- @param limit one of M.limits; this process's when nil
function M.units(limit)
  limit = (limit or os.getenv "ONEDNN_MAX_CPU_ISA" or os.getenv "DNNL_MAX_CPU_ISA" or "AVX512_CORE_AMX"):upper()
  local here = processor()
  for i, name in ipairs(M.limits) do
    if name == limit then return order[allows[i]] < order[here] and allows[i] or here end
  end
  if limit == "SSE41" or limit == "AVX" then return "none" end
  error(("ONEDNN_MAX_CPU_ISA: %s, specs know SSE41, AVX, %s"):format(limit, table.concat(M.limits, ", ")))
end

return M
