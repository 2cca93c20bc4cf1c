local exact = require "support.exact"
local process = require "support.process"

local function run(args, stdin)
  local result = process.mptl(args, { stdin = stdin })
  return result.out, result.err, result.status
end

local function round(stdin, ...)
  return run({ "round", "--format", ... }, stdin)
end

local function succeeds(want, ...)
  assert.same({ want, "", 0 }, { round(...) })
end

describe("mptl round", function()
  it("prints decimals for decimals and patterns for patterns", function()
    succeeds("1\n30\n0.00012207031\n-0\n", "1.0625\n100\n1e-4\n-1e-10\n", "FP(4,3,4)")
    succeeds("0x3F800000\n0x80000000\n2\n0x7FC00000\n", "0x3F880000\n0xAEDBE6FF\n2\n0x7fc00000\n", "FP(4,3,0)")
    succeeds("1\n", "  1.01\t\r\n", "FP(4,3,0)")
    succeeds("3\n", "3", "FP(4,3,0)") -- without a last newline
    succeeds("", "", "fp16")
  end)

  it("reads a decimal to the nearest binary32, and prints a decimal that reads back as the same", function()
    -- halfway between two binary32 values, and just above it, where going through binary64 would tie
    succeeds("0x3F800000\n", "0x3F800000\n", "fp32")
    succeeds("1\n1.0000001\n", "1.000000059604644775390625\n1.000000059604644775390625000000000001\n", "fp32")
    local texts = {}
    for i = 1, 300 do texts[i] = ("%.17g"):format(exact.value((i * 0x9E3779B1) & 0x7f7fffff)) end
    local out = round(table.concat(texts, "\n") .. "\n", "fp32")
    local i = 0
    for line in out:gmatch "[^\n]+" do
      i = i + 1
      assert.equal(exact.bits(tonumber(texts[i])), exact.bits(tonumber(line)))
      assert.is_true(#line <= 15)
    end
    assert.equal(300, i)
  end)

  it("reads and prints infinity and NaN", function()
    succeeds("30\n-30\nnan\n", "inf\n-Infinity\nNaN\n", "FP(4,3,4)")
    succeeds("inf\n-inf\ninf\n", "inf\n-1e30\n1e999\n", "FP(4,3,4)", "--overflow", "inf")
  end)

  it("accepts a mode and a seed", function()
    succeeds("1.125\n", "1.0625\n", "FP(4,3,0)", "--rounding", "nearest_away")
    succeeds("1.125\n-1\n", "1.01\n-1.01\n", "FP(4,3,0)", "--rounding", "up")
    local input = ("1.0625\n"):rep(200)
    local out, _, status = round(input, "FP(4,3,0)", "--rounding", "stochastic", "--seed", "7")
    assert.equal(0, status)
    assert.equal(out, (round(input, "FP(4,3,0)", "--rounding", "stochastic", "--seed", "7")))
    assert.not_equal(out, (round(input, "FP(4,3,0)", "--rounding", "stochastic", "--seed", "8")))
    local ups = select(2, out:gsub("1.125\n", ""))
    assert.is_true(ups > 60 and ups < 140)
  end)

  it("rounds raw binary32", function()
    local bytes = ("<fffff"):pack(1.0625, 100, -1e-10, 0 / 0, 2)
    local out, err, status = round(bytes, "FP(4,3,0)", "--binary")
    assert.same({ "", 0, 20 }, { err, status, #out })
    local a, b, c, d, e = ("<fffff"):unpack(out)
    assert.same({ 1.0, 96.0, 0.0, 2.0 }, { a, b, c, e })
    assert.is_true(d ~= d and 1 / c == -math.huge)
    out, err, status = round(bytes:sub(1, 7), "FP(4,3,0)", "--binary")
    local message = "mptl: standard input: ends 3 bytes into a value, accepted are whole values of 4 bytes\n"
    assert.same({ ("<f"):pack(1.0), message, 1 }, { out, err, status })
  end)

  it("gives the same for a long input as for its pieces", function()
    local lines = {}
    for i = 1, 30000 do lines[i] = ("%.8g"):format(math.sin(i) * 2 ^ (i % 30 - 20)) end
    local text = table.concat(lines, "\n") .. "\n" -- many blocks
    local out, _, status = round(text, "FP(4,3,4)")
    assert.equal(0, status)
    local core = require "mptl.core"
    local values, i = {}, 0
    for k, line in ipairs(lines) do values[k] = tonumber(line) end
    local want = core.round(values, "FP(4,3,4)")
    for line in out:gmatch "[^\n]+" do
      i = i + 1
      assert.equal(exact.bits(want[i]), exact.bits(line == "-0" and -0.0 or tonumber(line)))
    end
    assert.equal(#lines, i)
  end)

  it("fits FP(e,m,auto) to the whole input", function()
    succeeds("0.375\n96\n", "0.37\n100\n", "FP(4,3,auto)")
  end)

  it("names a line that is not a number, after printing the lines before it", function()
    local accepted = ", accepted are a decimal number, a hexadecimal one such as 0x1.8p-3, or 0x and 8 hexadecimal digits\n"
    local function refuses(stdin, before, message)
      assert.same({ before, "mptl: " .. message, 1 }, { round(stdin, "fp16") })
    end
    refuses("1\nabc\n2\n", "1\n", "line 2: abc" .. accepted)
    refuses("1\n\n2\n", "1\n", "line 2: empty" .. accepted)
    refuses("0x3F80000\n", "", "line 1: 0x3F80000" .. accepted)
    refuses("0x1.8\n", "", "line 1: 0x1.8" .. accepted)
    refuses("1 2\n", "", "line 1: 1 2" .. accepted)
    refuses("1,5\n", "", "line 1: 1,5" .. accepted)
    refuses(("2\n"):rep(40000) .. "x", ("2\n"):rep(40000), "line 40001: x" .. accepted)
    refuses("1\n" .. ("9"):rep(100000) .. "\n", "1\n", "line 2: longer than 4096 bytes\n")
    refuses(("y"):rep(100), "", "line 1: " .. ("y"):rep(57) .. "..." .. accepted)
  end)

  it("names wrong options and values", function()
    local function refuses(message, ...)
      assert.same({ "", "mptl round: " .. message .. "\n", 2 }, { run { "round", ... } })
    end
    refuses("--format: format FP(9,3,4): exponent bits 9, accepted are 1 to 8", "--format", "FP(9,3,4)")
    refuses("--overflow: wrap, accepted are saturate, inf", "--format", "fp16", "--overflow", "wrap")
    local _, err, status = run { "round" }
    assert.equal(2, status)
    assert.matches("missing option '%-%-format'", err)
    _, err, status = run { "round", "--format", "fp16", "--rounding", "even" }
    assert.equal(2, status)
    assert.matches("^mptl round: %-%-rounding: even, accepted are nearest_even, nearest_away, toward_zero, up, down, ", err)
  end)
end)

describe("mptl formats", function()
  it("tabulates the named formats, or those that are asked for", function()
    local out, err, status = run { "formats" }
    assert.same({ "", 0 }, { err, status })
    assert.matches("\nfp16 +16 +65504 +6.10352e%-05 +5.96046e%-08 +0.000976562 +yes +yes +63487\n", out)
    out = run { "formats", "FP(4,3,4)" }
    assert.equal("FP(4,3,4)          8            30   0.000976562     0.00012207       0.125        no    no          255\n",
      out:match "\n(.*)")
  end)

  it("prints JSON", function()
    local out = run { "formats", "--json", "FP(5,2,0)" }
    assert.equal('{"name":"FP(5,2,0)","e":5,"m":2,"b":0,"bits":8,"max":114688.0', out:match "^(.-),\"min")
  end)

  it("names a wrong format", function()
    assert.same({ "", "mptl formats: format FP(4,30,0): mantissa bits 30, accepted are 0 to 23\n", 2 },
      { run { "formats", "FP(4,30,0)" } })
  end)
end)

describe("bench round", function()
  local bench = require "mptl.cmd.bench_round"

  it("measures what its fields say", function()
    local result = bench.benchmark { format = "FP(4,3,4)", elements = 100000, threads = 2, seconds = 0 }
    for _, field in ipairs { "gelem_per_s", "gb_per_s", "memcpy_gb_per_s", "encode_gb_per_s", "decode_gb_per_s" } do
      assert.is_true(result[field] > 0, field)
    end
    assert.near(8 * result.gelem_per_s, result.gb_per_s, 1e-9 * result.gb_per_s)
    assert.same({ "FP(4,3,4)", "nearest_even", 100000, 2 }, { result.format, result.rounding, result.elements, result.threads })
  end)
end)
