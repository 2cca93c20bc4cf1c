local core = require "mptl.core"
local exact = require "support.exact"
local isas = require "support.isas"
local random = require "support.random"

-- Lists are passed as tensors, so that vectors round them.
local function stochastic(x, name, options)
  options.mode = "stochastic"
  if type(x) ~= "table" then return core.round(x, name, options) end
  local y, stats = core.round(core.tensor({ #x }, x), name, options)
  return y:totable(), stats
end

local function constant(x, n) return core.tensor({ n }):fill(x) end

-- What share of n copies of x become y.
local function share(x, y, name, n, seed)
  local hits = 0
  for _, v in ipairs(stochastic(constant(x, n), name, { seed = seed }):totable()) do
    if v == y then hits = hits + 1 end
  end
  return hits / n
end

describe("stochastic rounding", function()
  after_each(function() core.isa "auto" end)

  it("draws from Philox4x32-10", function()
    -- the known answers published by its authors
    assert.same({ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 }, random.philox(0, 0, 0, 0, 0, 0))
    local ones = 0xffffffff
    assert.same({ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd }, random.philox(ones, ones, ones, ones, ones, ones))
  end)

  it("goes up exactly when the random fraction is smaller", function()
    -- FP(4,3,0) has steps of 1/8 from 1 on: x = 1 + w/2^32 / 8 is 24 bits wide for w a multiple of 2^12
    local seed, n, values, want = 0x123456789abcdef, 1000, {}, {}
    for i = 1, n do
      local w = random.word(seed, 7, 9, i - 1, 0)
      local threshold = ((w >> 12) + (i % 2)) << 12 -- just up to w, or just above
      values[i] = 1 + threshold / 2 ^ 35
      want[i] = w < threshold and 1.125 or (threshold == 1 << 32 and 1.125 or 1.0)
    end
    for _, isa in ipairs(isas) do
      core.isa(isa)
      assert.same(want, (stochastic(values, "FP(4,3,0)", { seed = seed, stream = 7, step = 9 })))
    end
  end)

  it("uses a second word when the first does not decide", function()
    -- A value of 24 digits between 2^-10 and 2^-9 of the smallest one has a fraction of 33 bits. Where the first word equals its
    -- upper 32 (an element whose word lies between 2^22 and 2^23), the last bit, worth half of the second word's range, decides.
    local seed, ups, found = 77, 0, 0
    for index = 0, 60000 do
      local w = random.word(seed, 0, 0, index, 0)
      if w >= 1 << 22 and w < 1 << 23 then
        found = found + 1
        local x = 2.0 ^ -13 * ((2 * w + 1) / 2 ^ 33) -- FP(4,3,4)
        local up = random.word(seed, 0, 0, index, 1) < 1 << 31
        if up then ups = ups + 1 end
        for _, isa in ipairs(isas) do
          core.isa(isa)
          local start = index // 64 * 64
          local values = {}
          for i = 1, 64 do values[i] = 1.0 end
          values[index - start + 1] = x
          local y, stats = stochastic(values, "FP(4,3,4)", { seed = seed, index = start })
          assert.equal(up and 2.0 ^ -13 or 0.0, y[index - start + 1])
          assert.same({ 64, up and 0 or 1 }, { stats.elements, stats.underflow })
        end
      end
    end
    assert.is_true(found > 20 and ups > 0 and ups < found)
  end)

  it("goes up with a probability that is the distance from below", function()
    local n = 40000
    local function near(want, got) assert.near(want, got, 4 * math.sqrt(want * (1 - want) / n)) end
    near(0.25, share(1.03125, 1.125, "FP(4,3,4)", n, 1))
    near(0.75, share(1.03125, 1.0, "FP(4,3,4)", n, 2))
    near(0.9, share(-(1 + 0.9 / 8), -1.125, "FP(4,3,4)", n, 3))
    near(0.5, share(2.0 ^ -14, 2.0 ^ -13, "FP(4,3,4)", n, 4)) -- below the smallest value
    near(1 / 64, share(2.0 ^ -19, 2.0 ^ -13, "FP(4,3,4)", n, 5))
    near(0.375, share(2.0 ^ -13 * 2.375, 2.0 ^ -13 * 3, "FP(4,3,4)", n, 6)) -- among the subnormals
    near(0x4000 / 0x10000, share(exact.value(0x00014000), exact.value(0x00020000), "bf16", n, 7)) -- among binary32's subnormals
  end)

  it("overflows with the probability of rounding up from the largest value", function()
    local function overflows(x)
      local _, stats = stochastic(constant(x, 10000), "FP(4,3,4)", { seed = 8 })
      return stats.overflow / stats.elements
    end
    assert.equal(0.0, overflows(30))
    assert.near(0.5, overflows(31), 0.02)
    assert.near(0.95, overflows(31.9), 0.01)
    assert.equal(1.0, overflows(32))
    local y = stochastic(constant(31, 1000), "FP(4,3,4)", { seed = 8, overflow = "inf" }):totable()
    for _, v in ipairs(y) do assert.is_true(v == 30 or v == math.huge) end
  end)

  it("does not change values of the format, nor zeros", function()
    local x = { 1.0, -30.0, 2.0 ^ -13, 0.0, -0.0, 1.125 }
    for seed = 1, 20 do
      local y = stochastic(x, "FP(4,3,4)", { seed = seed })
      assert.same(x, y)
      assert.equal(-math.huge, 1 / y[5])
    end
  end)

  it("does not depend on how an array is cut, and depends on seed, stream and step", function()
    local n, values = 1000, {}
    for i = 1, n do values[i] = math.sin(i) * 2.0 ^ (i % 20 - 14) end
    local whole = stochastic(values, "FP(4,3,4)", { seed = 5, stream = 2, step = 9 })
    for _, cut in ipairs { 1, 16, 37, 64, 100, 500 } do
      local pieces = {}
      for from = 1, n, cut do
        local part = table.move(values, from, math.min(from + cut - 1, n), 1, {})
        local y = stochastic(part, "FP(4,3,4)", { seed = 5, stream = 2, step = 9, index = from - 1 })
        table.move(y, 1, #y, #pieces + 1, pieces)
      end
      assert.same(whole, pieces)
    end
    assert.same(whole, (stochastic(values, "FP(4,3,4)", { seed = 5, stream = 2, step = 9 })))
    for _, other in ipairs {
      { seed = 6, stream = 2, step = 9 }, { seed = 5, stream = 3, step = 9 }, { seed = 5, stream = 2, step = 8 },
      { seed = 5, stream = 2, step = 9, index = 1 }, { seed = 5 + (1 << 32), stream = 2, step = 9 },
    } do
      assert.not_same(whole, (stochastic(values, "FP(4,3,4)", other)))
    end
  end)

  it("rounds tiny values up with their tiny probability", function()
    -- 2^-13 / 2^20: once in a million; a million draws almost surely have between 0 and 12 of them, 4 million at least one
    local _, stats = stochastic(constant(2.0 ^ -33, 1 << 22), "FP(4,3,4)", { seed = 11 })
    local ups = stats.elements - stats.underflow
    assert.is_true(ups >= 1 and ups <= 16)
  end)
end)
