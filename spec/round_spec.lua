-- Rounding compared with binary64 arithmetic (support/exact.lua) at every number where the result changes.
local core = require "mptl.core"
local exact = require "support.exact"
local isas = require "support.isas"
local process = require "support.process"

local modes = { "nearest_even", "nearest_away", "toward_zero", "up", "down" }
local inf = math.huge

-- name, then what exact.format takes
local formats = {
  { "FP(4,3,4)", 4, 3, 4 }, { "FP(5,2,0)", 5, 2, 0 }, { "FP(6,9,0)", 6, 9, 0 }, { "FP(4,3,0)", 4, 3, 0 },
  { "fp16", 5, 10, 0, 1024 }, { "fp8_e4m3fn", 4, 3, 0, 1 }, { "fp8_e5m2", 5, 2, 0, 4 }, { "bf16", 8, 7, 0 },
  { "FP(8,7,4)", 8, 7, 4 }, { "FP(8,3,30)", 8, 3, 30 }, { "FP(1,0,0)", 1, 0, 0 }, { "FP(3,0,1)", 3, 0, 1 },
  { "FP(8,0,0)", 8, 0, 0 }, { "FP(1,5,3)", 1, 5, 3 }, { "FP(5,10,115)", 5, 10, 115 }, { "FP(4,3,-119)", 4, 3, -119 },
  { "FP(4,3,-120)", 4, 3, -120 }, { "FP(1,3,-127)", 1, 3, -127 }, { "FP(1,0,-127)", 1, 0, -127 },
}

local function hex(bits) return ("%08X"):format(bits) end

local function round_bits(bits, name, options)
  local values = {}
  for i, u in ipairs(bits) do values[i] = ("<I4"):pack(u) end
  local y, stats = core.round(core.tensor({ #bits }):fromstring(table.concat(values)), name, options)
  local out, text = {}, y:tostring()
  for i = 1, #bits do out[i] = ("<I4"):unpack(text, 4 * i - 3) end
  return out, stats
end

-- A format's values, the midpoints between them, binary32's own limits, and all of these moved by one and two units in binary32's
-- last place; of either sign.
local function telling_bits(f)
  local list, seen = {}, {}
  local function add(u)
    if u < 0 or u > 0x7f800000 or seen[u] then return end
    seen[u] = true
    list[#list + 1] = u
    list[#list + 1] = u | 0x80000000
  end
  local function around(x)
    if x < 2.0 ^ 128 then
      for step = -2, 2 do add(exact.bits(x) + step) end
    end
  end
  local stride = math.max(1, #f.codes // 200)
  for i = 1, #f.codes, stride do
    for j = i, math.min(i + 1, #f.codes) do around(f.codes[j]) end
    if f.codes[i + 1] then around((f.codes[i] + f.codes[i + 1]) / 2) end
  end
  for i = math.max(1, #f.codes - 3), #f.codes do around(f.codes[i]) end
  if #f.codes > 1 then
    local last = f.codes[#f.codes] - f.codes[#f.codes - 1]
    around(f.max + last / 2)
    around(f.max + last)
    around(f.codes[2] / 2)
    for _, part in ipairs { 4, 3, 256, 2.0 ^ 33 } do around(f.codes[2] / part) end
  end
  for _, u in ipairs { 0, 1, 2, 0x400000, 0x7fffff, 0x800000, 0x800001, 0x3f800000, 0x7f7ffffe, 0x7f7fffff, 0x7f800000 } do
    add(u)
  end
  return list
end

describe("round", function()
  after_each(function() core.isa "auto" end)

  for _, spec in ipairs(formats) do
    it("to " .. spec[1] .. " is exact arithmetic rounded once, in every mode", function()
      local f = exact.format(spec[2], spec[3], spec[4], spec[5])
      local inputs = telling_bits(f)
      for _, mode in ipairs(modes) do
        for _, overflow in ipairs { "saturate", "inf" } do
          local want, counts = {}, { elements = #inputs, underflow = 0, overflow = 0, inf_in = 0, nan_in = 0 }
          for i, u in ipairs(inputs) do
            local x = exact.value(u)
            local y, over = exact.round(x, f, mode, overflow)
            want[i] = exact.bits(y)
            local finite = math.abs(x) < inf
            if y == 0 and x ~= 0 and not over and finite then counts.underflow = counts.underflow + 1 end
            if over then counts.overflow = counts.overflow + 1 end
            if not finite then counts.inf_in = counts.inf_in + 1 end
          end
          for _, isa in ipairs(isas) do
            core.isa(isa)
            local got, stats = round_bits(inputs, spec[1], { mode = mode, overflow = overflow })
            for i, u in ipairs(inputs) do
              if got[i] ~= want[i] then
                error(("%s %s %s %s: %s gives %s, correct is %s"):format(spec[1], mode, overflow, isa, hex(u), hex(got[i]),
                  hex(want[i])))
              end
            end
            if f.max == 0 then counts.underflow = stats.underflow end -- every result is 0, so underflow cannot be seen in it
            for field, count in pairs(counts) do assert.equal(count, stats[field], field) end
            assert.equal(exact.value(0x7f7fffff), stats.max_abs)
          end
        end
      end
    end)
  end

  it("is correct in cases where published code is not", function()
    local function check(input, name, options, want)
      for _, isa in ipairs(isas) do
        core.isa(isa)
        -- 40 copies, so that vectors round it too
        local copies = {}
        for i = 1, 40 do copies[i] = input end
        local got = round_bits(copies, name, options)
        for i = 1, 40 do assert.equal(hex(want), hex(got[i])) end
      end
    end
    local even, away, infinite = {}, { mode = "nearest_away" }, { overflow = "inf" }
    check(0x3F880000, "FP(4,3,0)", even, 0x3F800000) -- ties to even
    check(0x3F801000, "FP(5,10,0)", even, 0x3F800000)
    check(0x37000000, "FP(5,2,0)", even, 0)
    check(0x00008000, "FP(8,7,0)", even, 0)
    check(0x3F880000, "FP(4,3,0)", away, 0x3F900000) -- ties away
    check(0x37000000, "FP(5,2,0)", away, 0x37800000)
    for _, nearest in ipairs { even, away } do -- one rounding, not two
      check(0x36FFFFFF, "FP(5,2,0)", nearest, 0)
      check(0x3A7FFFFF, "FP(4,3,0)", nearest, 0)
    end
    check(0x80000000, "FP(4,3,0)", even, 0x80000000) -- the sign of zero
    check(0xAEDBE6FF, "FP(4,3,0)", even, 0x80000000)
    for _, overflow in ipairs { even, infinite } do -- NaN stays NaN, quiet, payload and sign kept
      check(0x7FC00000, "FP(4,3,0)", overflow, 0x7FC00000)
      check(0x7FFFFFFF, "FP(4,3,0)", overflow, 0x7FFFFFFF)
      check(0xFFC00000, "FP(4,3,0)", overflow, 0xFFC00000)
      check(0xFFFFFFFF, "FP(4,3,0)", overflow, 0xFFFFFFFF)
      check(0x7F800001, "FP(4,3,0)", overflow, 0x7FC00001)
    end
    check(0x40400000, "FP(8,23,0)", even, 0x40400000) -- fp32 drops nothing
    check(0x47800000, "fp16", infinite, 0x7F800000)
    check(0x47800000, "fp16", even, 0x477FE000)
    check(0x7F7FFFFF, "FP(8,7,0)", even, 0x7F7F0000) -- saturates also where binary32 ends
    check(0x7F7FFFFF, "FP(8,7,0)", infinite, 0x7F800000)
    check(0x7F61B1E6, "FP(8,7,4)", even, 0x7DFF0000)
    check(0x43EB0000, "fp8_e4m3fn", even, 0x43E00000)
  end)

  it("overflows only in the mode's direction", function()
    local x = { 1e6, -1e6 }
    local function both(mode) return core.round(x, "FP(4,3,4)", { mode = mode, overflow = "inf" }) end
    assert.same({ inf, -inf }, (both "nearest_even"))
    assert.same({ 30.0, -30.0 }, (both "toward_zero"))
    assert.same({ inf, -30.0 }, (both "up"))
    assert.same({ 30.0, -inf }, (both "down"))
    assert.equal(0, select(2, both "toward_zero").overflow)
    assert.equal(1, select(2, both "up").overflow)
    assert.same({ 30.0, 30.0, inf }, (core.round({ 30.9999, 30.5, 31 }, "FP(4,3,4)", { overflow = "inf" })))
  end)

  it("counts NaN and infinity separately from overflow", function()
    local _, stats = core.round({ 0 / 0, inf, -inf, 100, 1e-9, -1e-9, 0.0, 1, -7 }, "FP(4,3,4)")
    assert.same({
      elements = 9, nan_in = 1, inf_in = 2, overflow = 1, underflow = 2, max_abs = 100.0, format = "FP(4,3,4)",
    }, stats)
    assert.equal(0.0, select(2, core.round({ 0 / 0, inf }, "fp16")).max_abs)
  end)

  it("does not change fp32, except infinity when it saturates", function()
    local x = { 1e-45, 3e38, -1.1754942e-38 }
    for i, v in ipairs(x) do x[i] = (("<f"):unpack(("<f"):pack(v))) end
    for _, mode in ipairs(core.rounding_modes()) do assert.same(x, (core.round(x, "fp32", { mode = mode }))) end
    assert.same({ exact.value(0x7f7fffff) }, (core.round({ inf }, "fp32")))
    assert.same({ inf }, (core.round({ inf }, "fp32", { overflow = "inf" })))
  end)

  it("keeps the shape of a tensor and does not change the tensor", function()
    local x = core.tensor({ 2, 2 }, { 1.06, 2, 3, 1000 })
    local y = core.round(x, "FP(4,3,4)")
    assert.same({ 2, 2 }, y:size())
    assert.same({ 1.0, 2.0, 3.0, 30.0 }, y:totable())
    assert.equal(1000.0, x:get(4))
  end)

  it("names a wrong option", function()
    local function refuses(options, message)
      assert.same({ false, message }, { pcall(core.round, { 1 }, "fp16", options) })
    end
    refuses({ mode = "even" },
      "rounding mode even: accepted are nearest_even, nearest_away, toward_zero, up, down, stochastic")
    refuses({ overflow = "wrap" }, "overflow wrap: accepted are saturate, inf")
    refuses({ rounding = "up" }, "unknown option rounding, accepted are: mode overflow seed stream step index")
  end)
end)

describe("every instruction set", function()
  after_each(function() core.isa "auto" end)

  -- Random patterns, many of them near the limits of formats.
  local function mixed(n)
    local values = {}
    local x = 12345
    for i = 1, n do
      x = (x * 6364136223846793005 + 1442695040888963407)
      local u = x >> 32
      if i % 3 == 0 then u = (u & 0x807fffff) | (100 + (x >> 20) % 60) << 23 end
      if i % 97 == 0 then u = u | 0x7f800000 end
      values[i] = ("<I4"):pack(u & 0xffffffff)
    end
    return table.concat(values)
  end

  local bytes = mixed(3001)

  it("rounds, encodes, decodes and counts in the same way, for any length and alignment", function()
    for _, name in ipairs { "FP(4,3,4)", "FP(5,2,0)", "FP(6,9,0)", "fp16", "fp8_e4m3fn", "bf16", "tf32", "fp32", "FP(8,7,4)",
      "FP(3,0,0)", "FP(7,23,62)", "FP(5,10,115)", "FP(4,3,-125)" } do
      for _, mode in ipairs(core.rounding_modes()) do
        for _, n in ipairs { 1, 7, 15, 16, 17, 63, 64, 65, 130, 3001 } do
          local overflow = n % 2 == 0 and "inf" or "saturate"
          local options = { mode = mode, overflow = overflow, seed = 3, index = n == 130 and 0 or 4 * n + 1 }
          local from = n == 3001 and 1 or 4 * (n % 13) + 1
          local x = core.tensor({ n }):fromstring(bytes:sub(from, from + 4 * n - 1))
          local want, want_codes, want_back
          for _, isa in ipairs(isas) do
            core.isa(isa)
            local y, stats = core.round(x, name, options)
            local codes, code_stats = core.encode(x, name, options)
            local all = { y:tostring(), stats }
            assert.same(stats, code_stats)
            local back = core.tensor({ n }, core.decode(codes, name)):tostring()
            if isa == "scalar" then
              want, want_codes, want_back = all, codes, back
            else
              assert.same(want, all, ("%s %s %d %s"):format(name, mode, n, isa))
              assert.equal(want_codes, codes)
              assert.equal(want_back, back)
            end
          end
        end
      end
    end
  end)

  it("writes large arrays, which bypass the caches, in the same way", function()
    local n, piece = (1 << 21) + 37, bytes:sub(1, 4 * 3000) -- above 8 MiB
    local large = core.tensor({ n }):fromstring(piece:rep(n // 3000 + 1):sub(1, 4 * n))
    local small = core.tensor({ 3000 }):fromstring(piece)
    for _, isa in ipairs(isas) do
      core.isa(isa)
      local once, stats = core.round(small, "FP(4,3,4)")
      local y, large_stats = core.round(large, "FP(4,3,4)")
      assert.is_true(once:tostring():rep(n // 3000 + 1):sub(1, 4 * n) == y:tostring())
      assert.equal(n, large_stats.elements)
      assert.near(stats.overflow / 3000, large_stats.overflow / n, 1e-3)
    end
    local got = {}
    for i, isa in ipairs(isas) do
      core.isa(isa)
      got[i] = core.round(large, "FP(4,3,4)", { mode = "stochastic", index = 5 }):tostring()
      assert.is_true(got[1] == got[i])
    end
  end)

  it("is chosen by name", function()
    assert.equal("scalar", core.isa "scalar")
    local accepted = table.concat(isas, ", ") .. ", auto"
    assert.same({ false, "instruction set mmx: accepted are " .. accepted }, { pcall(core.isa, "mmx") })
    for _, isa in ipairs { "neon", "avx2", "avx512" } do
      local ok, why = pcall(core.isa, isa)
      local lacking = "instruction set %s: this processor or build does not have it, accepted are %s"
      assert.is_true(ok or why == lacking:format(isa, accepted))
    end
  end)

  it("is chosen for a process by MPTL_ISA", function()
    for _, isa in ipairs(isas) do
      local out = process.mptl({ "doctor" }, { env = { MPTL_ISA = isa } }).out
      assert.matches(("kernels    %s by MPTL_ISA; here are %s\n"):format(isa, table.concat(isas, ", ")), out, 1, true)
    end
    local widest = isas[#isas]
    assert.matches("kernels    " .. widest .. "; here", process.mptl({ "doctor" }, { env = { MPTL_ISA = "" } }).out, 1, true)
    local refused = process.mptl({ "formats" }, { env = { MPTL_ISA = "mmx" } })
    assert.equal(1, refused.status)
    assert.equal(("mptl: MPTL_ISA: instruction set mmx: accepted are %s, auto\n"):format(table.concat(isas, ", ")), refused.err)
  end)
end)
