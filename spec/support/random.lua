--- The random bits of kernels/random.h, in Lua.
local M = {}

--- Philox4x32-10 (Salmon et al., SC 2011).
function M.philox(c0, c1, c2, c3, k0, k1)
  for _ = 1, 10 do
    local p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
    c0, c1, c2, c3 = (p1 >> 32) ~ c1 ~ k0, p1 & 0xffffffff, (p0 >> 32) ~ c3 ~ k1, p0 & 0xffffffff
    k0, k1 = (k0 + 0x9E3779B9) & 0xffffffff, (k1 + 0xBB67AE85) & 0xffffffff
  end
  return { c0, c1, c2, c3 }
end

--- The random word of an element, in the layout of kernels/random.h.
function M.word(seed, stream, step, index, plane)
  local counter = index // 64 * 16 + index % 16
  return M.philox(counter, plane << 31, stream, step, seed & 0xffffffff, seed >> 32)[index // 16 % 4 + 1]
end

return M
