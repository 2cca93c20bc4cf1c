-- Text, binary64 and integers are rounded once, not to binary32 first: compared with fractions of
-- integers (support/rational.lua).
local core = require "mptl.core"
local exact = require "support.exact"
local process = require "support.process"
local random = require "support.random"
local rational = require "support.rational"

-- name, then what exact.format takes; where there is no table of values, the largest one
local formats = {
  { "fp32", 8, 23, 0, max = exact.value(0x7f7fffff) }, { "tf32", 8, 10, 0, max = exact.value(0x7f7fe000) },
  { "FP(8,23,127)", 8, 23, 127, max = 2.0 ^ 1 * (2 - 2.0 ^ -23) },
  { "FP(7,12,100)", 7, 12, 100, max = 2.0 ^ -36 * (2 - 2.0 ^ -12) },
  { "bf16", 8, 7, 0 }, { "fp16", 5, 10, 0, 1024 }, { "fp8_e4m3fn", 4, 3, 0, 1 }, { "FP(4,3,4)", 4, 3, 4 },
  { "FP(6,9,0)", 6, 9, 0 }, { "FP(3,0,1)", 3, 0, 1 }, { "FP(8,0,0)", 8, 0, 0 }, { "FP(5,10,115)", 5, 10, 115 },
  { "FP(4,3,-120)", 4, 3, -120 },
}
local modes = core.rounding_modes()
local seed = 41

local next_random
do
  local state = 7
  next_random = function(n) -- 0 to n - 1
    state = state * 6364136223846793005 + 1442695040888963407
    return (state >> 33) % n
  end
end

local function format_of(row)
  local f = exact.format(row[2], row[3], row[4], row[5])
  f.max = row.max or f.max
  return f
end

-- A value between two neighbours of the format's, or one of them: in units of a quarter of the spacing.
local function place(f)
  local least = math.max(f.emin - f.m, -149)
  local top = math.floor(math.log(f.max, 2))
  local last = least + next_random(math.max(top - f.m - least, 0) + 2)
  local whole = next_random(1 << f.m + 1)
  if next_random(4) == 0 then whole = next_random(2) == 0 and 0 or (1 << f.m + 1) - 1 end
  return (4 * whole + next_random(4)) * 2.0 ^ (last - 2)
end

-- The exact decimal of a number, if it has at most 100 digits; with the number just above it, and just below.
local function decimals_around(x)
  local text = ("%.99e"):format(x)
  local digits, power = text:match "^(.-)0*(e.*)$"
  if tonumber(text) ~= x or x == 0 or #digits > 95 then return { "1e-300", "0." .. ("0"):rep(400) .. "1", "3e-46" } end
  local last = digits:match "[1-9]%.?$"
  local zeros = ("0"):rep(next_random(150))
  local above = digits .. (digits:find("%.") and "" or ".") .. zeros .. "1" .. power
  local below = digits:sub(1, -#last - 1) .. (tonumber(last:sub(1, 1)) - 1) .. (#last > 1 and "." or "") ..
    (digits:find("%.") and "" or ".") .. ("9"):rep(1 + #zeros) .. power
  return { digits .. power, above, below }
end

local function random_bits(index)
  return random.word(seed, 0, 0, index, 0) << 32 | random.word(seed, 0, 0, index, 1)
end

-- Compares results with those of the fractions; counts events.
local function check(name, f, mode, overflow, inputs, got, told)
  local counts = { overflow = 0, underflow = 0 }
  for i, x in ipairs(inputs) do
    local want, event = rational.round(x, f, mode, overflow, random_bits(i - 1))
    if event then counts[event] = counts[event] + 1 end
    if got[i] ~= want or 1 / got[i] ~= 1 / want then
      error(("%s %s: %s gives %a, not %a"):format(name, mode, told[i], got[i], want))
    end
  end
  return counts
end

describe("a number wider than binary32 is rounded once", function()
  it("in the cases where two roundings go wrong", function()
    local function round(x, name, mode) return (core.round({ x }, name, { mode = mode }))[1] end
    assert.equal(-416.0, round(-431.99999999999994, "fp8_e4m3fn"))
    assert.equal(1.0078125, round(1.0039062500009095, "bf16"))
    assert.equal(1.0078125, round(1 + 2.0 ^ -40, "bf16", "up"))
    assert.equal(16777218.0, round(16777217 + 2.0 ^ -20, "fp32"))
    assert.equal(2.0 ^ 63 * (1 + 2.0 ^ -7), round((1 << 62 | 1 << 54 | 1) << 1 >> 1, "bf16", "up") * 2)
    assert.equal(2.0 ^ 63, round(math.maxinteger, "bf16"))
    assert.equal(-2.0 ^ 63, round(math.mininteger, "bf16", "up"))
    local _, stats = core.round({ 1e300, 1e-320, 3.0, math.huge }, "fp16")
    assert.same({ 1, 1, 1, 1e300 }, { stats.overflow, stats.underflow, stats.inf_in, stats.max_abs })
    assert.equal("\x7d", (core.encode({ 431.99999999999994 }, "fp8_e4m3fn")))
  end)

  for _, row in ipairs(formats) do
    it("from binary64 to " .. row[1] .. ", in every mode", function()
      local f, values, inputs = format_of(row), {}, {}
      for i = 1, 150 do
        local x = place(f)
        local kind = next_random(3)
        if kind == 1 then x = x * (1 + 2.0 ^ -52) end
        if kind == 2 then x = x * (1 - 2.0 ^ -53) end
        if i % 17 == 0 then x = x * 2.0 ^ (next_random(2) * 300 - 150) end
        values[i] = next_random(2) == 0 and x or -x
        inputs[i] = rational.number(values[i])
      end
      for _, mode in ipairs(modes) do
        local overflow = next_random(2) == 0 and "inf" or "saturate"
        local got, stats = core.round(values, row[1], { mode = mode, overflow = overflow, seed = seed })
        local counts = check(row[1], f, mode, overflow, inputs, got, values)
        assert.same(counts, { overflow = stats.overflow, underflow = stats.underflow })
      end
    end)

    it("from decimals to " .. row[1] .. ", in every mode", function()
      local f, texts, inputs = format_of(row), {}, {}
      for _ = 1, 25 do
        for _, text in ipairs(decimals_around(place(f))) do
          texts[#texts + 1] = (next_random(2) == 0 and "-" or "") .. text
        end
        local digits = {}
        for k = 1, 1 + next_random(60) do digits[k] = next_random(10) end
        texts[#texts + 1] = ("%s.%se%d"):format(digits[1], table.concat(digits, "", 2), next_random(90) - 50)
      end
      for i, text in ipairs(texts) do inputs[i] = rational.decimal(text) end
      for _, mode in ipairs(modes) do
        local options = { mode = mode, overflow = "inf", seed = seed }
        local out, count, bad = core.round_lines(table.concat(texts, "\n"), row[1], options)
        assert.same({ #texts }, { count, bad })
        local got = {}
        for line in out:gmatch "[^\n]+" do
          local y = exact.bits(tonumber(line) or (line:gsub("inf", "1e999") + 0.0))
          got[#got + 1] = line == "-0" and -0.0 or exact.value(y)
        end
        check(row[1], f, mode, "inf", inputs, got, texts)
      end
    end)
  end

  it("as arrays are, if binary32 holds it", function()
    local bits = {}
    for i = 1, 3000 do bits[i] = next_random(1 << 31) | next_random(2) << 31 end
    local texts, packed = {}, {}
    for i, u in ipairs(bits) do
      if u & 0x7f800000 == 0x7f800000 then u = u & 0xff7fffff end
      packed[i], texts[i] = ("<I4"):pack(u), ("%a"):format(exact.value(u))
    end
    local x = core.tensor({ #bits }):fromstring(table.concat(packed))
    for _, name in ipairs { "FP(4,3,4)", "FP(8,7,4)", "FP(5,10,115)", "bf16", "FP(7,23,62)", "FP(4,3,auto)" } do
      for _, mode in ipairs(modes) do
        local options = { mode = mode, seed = seed }
        local want, stats = core.round(x, name, options)
        local list, list_stats = core.round(x:totable(), name, options)
        assert.same(stats, list_stats)
        assert.same(want:totable(), list)
        local lines = core.round_lines(table.concat(texts, "\n"), name, options)
        local i = 0
        for line in lines:gmatch "[^\n]+" do
          i = i + 1
          assert.equal(exact.bits(list[i]), exact.bits(line == "-0" and -0.0 or tonumber(line)), texts[i])
        end
      end
    end
  end)

  it("and FP(e,m,auto) is fitted to it, even if binary32 would round it to a power of two", function()
    local format = require "mptl.format"
    assert.equal(8 - 1, format("FP(4,3,auto)"):fit(1 + 2.0 ^ -40).b)
    assert.equal(8, format("FP(4,3,auto)"):fit(1).b)
    assert.equal("FP(4,3,7)", select(2, core.round({ 1 + 2.0 ^ -40 }, "FP(4,3,auto)")).format)
  end)
end)

describe("mptl round reads text of any shape", function()
  local function round(text, ...)
    local result = process.mptl({ "round", "--format", ... }, { stdin = text })
    assert.same({ "", 0 }, { result.err, result.status })
    return result.out
  end

  it("decimal", function()
    assert.equal("-416\n448\n", round("-431.99999999999994\n1e999999999999999999999\n", "fp8_e4m3fn"))
    assert.equal("1.0078125\n1\n", round("1.00390625" .. ("0"):rep(3000) .. "1\n1.00390625\n", "bf16"))
    assert.equal("1\n1\n1\n0.5\n0.5\n16\n100\n",
      round("1.\n+1\n01.0e0\n.5\n5e-1\n16" .. ("0"):rep(1000) .. "e-1000\n0.1E+3\n", "fp16"))
    assert.equal("0\n-0\n0\n", round("0e99\n-0.0\n1e-99999999999999999\n", "fp16"))
  end)

  it("hexadecimal", function()
    assert.equal("1.0078125\n1\n-0.1875\n20\n", round("0x1.01000000000000000000000000001p0\n0x1.01p+0\n-0x.3p0\n0xAp1\n", "bf16"))
    assert.equal("448\n0\n", round("0x1p99999999999\n0x1p-99999999999\n", "fp8_e4m3fn"))
  end)

  it("and nothing else", function()
    for _, text in ipairs {
      ".", "e5", "1e", "1e+", "1e5.0", "0x", "0xp1", "0x1", "0x1.8", "0x1p", "--1", "1..2", "nan(1)", "infi",
      "1f", "- 1",
    } do
      local result = process.mptl({ "round", "--format", "fp16" }, { stdin = text .. "\n" })
      assert.equal(1, result.status, text)
      assert.matches("^mptl: line 1: .*, accepted are a decimal number, a hexadecimal one", result.err)
    end
  end)

  it("in time that is proportional to its length", function()
    local before = os.clock()
    local long = ("7"):rep(1 << 22)
    local _, count, bad = core.round_lines("1\n" .. long .. "\n0." .. long, "fp16", {})
    assert.same({ 3 }, { count, bad })
    assert.is_true(os.clock() - before < 2)
    local from = core.time()
    local result = process.mptl({ "round", "--format", "fp16" }, { stdin = long })
    assert.equal("mptl: line 1: longer than 4096 bytes\n", result.err)
    assert.is_true(core.time() - from < 5)
  end)
end)
