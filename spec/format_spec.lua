local core = require "mptl.core"
local exact = require "support.exact"
local isas = require "support.isas"
local format = require "mptl.format"

local function bytes_of(n, size) return ("<I" .. size):pack(n) end

describe("format", function()
  it("knows the limits of the paper's formats", function()
    local f = format "FP(4,3,4)"
    assert.same({ 4, 3, 4, 8 }, { f.e, f.m, f.b, f.bits })
    assert.same({ 30.0, 2.0 ^ -10, 2.0 ^ -13, 0.125 }, { f.max, f.min_normal, f.min_subnormal, f.epsilon })
    assert.same({ false, false, 255 }, { f.has_infinity, f.has_nan, f.values })
    assert.equal(114688.0, format("FP(5,2,0)").max)
    assert.equal(2.0 ^ 32 * (2 - 2.0 ^ -9), format("FP(6,9,0)").max)
    assert.equal(480.0, format("FP(4,3,0)").max)
    assert.equal(131008.0, format("FP(5,10,0)").max)
    assert.equal(2.0 ^ 124 * (2 - 2.0 ^ -7), format("FP(8,7,4)").max)
  end)

  it("knows the limits of the named formats", function()
    local function facts(name)
      local f = format(name)
      return { f.bits, f.max, f.min_subnormal, f.has_infinity, f.has_nan, f.values }
    end
    assert.same({ 16, 65504.0, 2.0 ^ -24, true, true, 63487 }, facts "fp16")
    assert.same({ 8, 448.0, 2.0 ^ -9, false, true, 253 }, facts "fp8_e4m3fn")
    assert.same({ 8, 57344.0, 2.0 ^ -16, true, true, 247 }, facts "fp8_e5m2")
    assert.same({ 16, exact.value(0x7f7f0000), 2.0 ^ -133, true, true, 65279 }, facts "bf16")
    assert.same({ 19, exact.value(0x7f7fe000), 2.0 ^ -136, true, true, 2 * (255 * 1024) - 1 }, facts "tf32")
    assert.same({ 32, exact.value(0x7f7fffff), 2.0 ^ -149, true, true, 2 * (255 * 2 ^ 23) - 1 }, facts "fp32")
  end)

  it("has infinity if 2^128 has a code, and NaN if there are codes above it", function()
    local function specials(name) return { format(name).has_infinity, format(name).has_nan } end
    assert.same({ true, true }, specials "FP(8,3,0)")
    assert.same({ true, false }, specials "FP(8,0,0)")
    assert.same({ true, true }, specials "FP(8,0,-1)")
    assert.same({ false, false }, specials "FP(8,3,1)")
    assert.same({ true, true }, specials "FP(4,3,-120)")
    assert.same({ false, false }, specials "FP(4,3,-119)")
  end)

  it("works when 0 is the only finite value", function()
    local f = format "FP(1,0,-127)"
    assert.same({ 0.0, 1, true, false }, { f.max, f.values, f.has_infinity, f.has_nan })
    assert.same({ 0.0, 0.0 }, (f:round { 3e38, 1.0 }))
    assert.same({ math.huge, 0.0 }, (f:round({ 3e38, 1.0 }, { overflow = "inf" })))
    assert.same({ 0.0, math.huge }, f:decode "\0\1")
  end)

  it("reads names in either case and with spaces, and prints names that it can read", function()
    assert.equal("FP(4,3,4)", format("fp( 4, 3 ,+4 )").name)
    assert.equal("FP(4,3,auto)", format("Fp(4,3, AUTO)").name)
    assert.equal("fp8_e4m3fn", format("FP8_E4M3FN").name)
    assert.equal("bf16", format("FP(8,7,0)").name)
    assert.equal("FP(5,10,0)", format("FP(5,10,0)").name) -- fp16 reserves its top exponent
    for _, name in ipairs(format.names) do assert.equal(name, format(name).name) end
    for e = 1, 8 do
      for m = 0, 23, 3 do
        for b = -127, 127, 127 do
          local f = format(("FP(%d,%d,%d)"):format(e, m, b))
          assert.same({ e, m, b }, { f.e, f.m, f.b })
          assert.equal(f, format(f.name))
        end
      end
    end
  end)

  it("names the limit that is exceeded", function()
    local function refuses(text, message)
      local ok, err = pcall(core.format, text)
      assert.same({ false, message }, { ok, err })
    end
    refuses("FP(0,3,4)", "format FP(0,3,4): exponent bits 0, accepted are 1 to 8")
    refuses("FP(9,3,4)", "format FP(9,3,4): exponent bits 9, accepted are 1 to 8")
    refuses("FP(4,24,4)", "format FP(4,24,4): mantissa bits 24, accepted are 0 to 23")
    refuses("FP(4,-1,4)", "format FP(4,-1,4): mantissa bits -1, accepted are 0 to 23")
    refuses("FP(4,3,128)", "format FP(4,3,128): exponent bias shift 128, accepted are -127 to 127")
    refuses("FP(4,3,-128)", "format FP(4,3,-128): exponent bias shift -128, accepted are -127 to 127")
    local accepted = "not a format, accepted are fp32, tf32, bf16, fp16, fp8_e4m3fn, fp8_e5m2, FP(e,m,b), FP(e,m,auto)"
    for _, text in ipairs { "", "fp", "float", "FP(4,3)", "FP(4,3,4", "FP(4,3,4)x", "FP(4,3,x)", "FP(4,3,autox)", "FP_4_3_4" } do
      refuses(text, "format " .. text .. ": " .. accepted)
    end
  end)

  it("fits the bias shift of FP(e,m,auto) to the largest magnitude", function()
    local f = format "FP(4,3,auto)"
    assert.equal("auto", f.b)
    assert.equal("FP(4,3,3)", f:fit(30).name) -- floor(8 - 4.9)
    assert.equal("FP(4,3,3)", f:fit(32).name) -- 8 - 5, exactly
    assert.equal("FP(4,3,2)", f:fit(32.000004).name)
    assert.equal("FP(4,3,8)", f:fit(1).name)
    assert.equal("FP(4,3,108)", f:fit(0).name) -- floored at 2^-100
    assert.equal("FP(8,3,127)", format("FP(8,3,auto)"):fit(2 ^ -100).name) -- 228, reduced to the limit
    assert.equal("FP(4,3,-120)", f:fit(exact.value(0x7f7fffff)).name)
    assert.equal("FP(5,2,0)", format("FP(5,2,0)"):fit(1).name)
    local y, stats = f:round { 0.3, -20, 1e-3 }
    assert.equal("FP(4,3,3)", stats.format)
    assert.same({ 0.3125, -20.0, 2.0 ^ -10 }, y)
  end)

  it("lists its values in ascending order", function()
    assert.same({ -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0 }, format("FP(1,1,-1)"):list())
    assert.equal(255, #format("FP(4,3,4)"):list())
    assert.has_error(function() format("tf32"):list() end)
  end)
end)

describe("codes", function()
  it("have the values of the definition, and these values have the codes", function()
    for _, c in ipairs { { "FP(4,3,4)", 4, 3, 4 }, { "FP(5,2,0)", 5, 2, 0 }, { "FP(6,9,0)", 6, 9, 0 }, { "bf16", 8, 7, 0 },
      { "FP(8,7,4)", 8, 7, 4 }, { "fp16", 5, 10, 0, 1024 }, { "fp8_e4m3fn", 4, 3, 0, 1 }, { "fp8_e5m2", 5, 2, 0, 4 },
      { "FP(1,0,0)", 1, 0, 0 }, { "FP(1,2,5)", 1, 2, 5 }, { "FP(3,0,-2)", 3, 0, -2 }, { "FP(4,3,-120)", 4, 3, -120 },
      { "FP(5,10,115)", 5, 10, 115 }, { "FP(8,0,-127)", 8, 0, -127 }, { "FP(1,3,-127)", 1, 3, -127 },
      { "FP(1,0,-127)", 1, 0, -127 }, { "FP(1,9,-127)", 1, 9, -127 } } do
      local f, want = format(c[1]), exact.format(c[2], c[3], c[4], c[5])
      assert.equal(want.max, f.max)
      assert.equal(#want.codes, f.max_code + 1)
      local codes, sign = {}, 1 << (c[2] + c[3])
      for i = 1, #want.codes do
        codes[2 * i - 1] = bytes_of(i - 1, f.code_size)
        codes[2 * i] = bytes_of(i - 1 + sign, f.code_size)
      end
      local all = table.concat(codes)
      for _, isa in ipairs(isas) do
        core.isa(isa)
        local got = f:decode(all)
        for i, x in ipairs(want.codes) do
          if got[2 * i - 1] ~= x or got[2 * i] ~= -x or 1 / got[2 * i] ~= 1 / -x then
            error(("%s code %d: %a and %a, not %a"):format(c[1], i - 1, got[2 * i - 1], got[2 * i], x))
          end
        end
        assert.equal(all, (f:encode(got)))
        assert.same(got, f:round(core.tensor({ #got }, got)):totable())
      end
    end
  end)

  it("include infinity and NaN if the format does", function()
    local nan = 0 / 0
    assert.equal("\x00\x7c\x00\xfc", (format("fp16"):encode({ math.huge, -math.huge }, { overflow = "inf" })))
    assert.same({ math.huge, -math.huge }, format("fp16"):decode "\x00\x7c\x00\xfc")
    assert.equal("\x7c", (format("fp8_e5m2"):encode({ 1e6 }, { overflow = "inf" })))
    assert.equal("\x80\x7f", (format("bf16"):encode({ math.huge }, { overflow = "inf" })))
    for _, name in ipairs { "fp32", "tf32", "bf16", "fp16", "fp8_e4m3fn", "fp8_e5m2", "FP(8,3,0)", "FP(4,3,-120)" } do
      for _, x in ipairs { nan, -nan } do
        local back = format(name):decode((format(name):encode { x }))[1]
        assert.is_true(back ~= back, name)
      end
    end
    assert.equal("\x7f", (format("fp8_e4m3fn"):encode { exact.value(0x7fc00000) }))
    local wide = format("fp8_e5m2"):decode("\x7d\x7e\x7f\xfd")
    for _, x in ipairs(wide) do assert.is_true(x ~= x) end
  end)

  it("are the largest finite ones if the format has none for infinity or NaN", function()
    local codes, stats = format("FP(4,3,4)"):encode({ math.huge, -math.huge, exact.value(0x7fc00000), 1e6 }, { overflow = "inf" })
    assert.equal("\x7f\xff\x7f\x7f", codes)
    assert.same({ 2, 1, 1 }, { stats.inf_in, stats.nan_in, stats.overflow })
    assert.equal("\x7e", (format("fp8_e4m3fn"):encode({ math.huge }, { overflow = "inf" })))
  end)

  it("take 1, 2 or 4 bytes", function()
    local function size(name) return #format(name):encode { 1 } end
    assert.same({ 1, 1, 2, 2, 4, 4 },
      { size "FP(1,0,0)", size "FP(4,3,4)", size "FP(4,4,4)", size "fp16", size "tf32", size "fp32" })
    assert.has_error(function() core.decode("abc", "fp16") end, "decode: 3 bytes, not a multiple of the format's 2")
  end)
end)
