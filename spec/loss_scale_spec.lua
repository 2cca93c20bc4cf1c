local loss_scale = require "mptl.loss_scale"

--- The scales after each step of a text: "." applied, "x" not.
local function scales(state, steps)
  local list = {}
  for c in steps:gmatch "." do
    state:update(c == ".")
    list[#list + 1] = state.scale
  end
  return list
end

describe("loss_scale", function()
  describe("dynamic", function()
    it("starts at 65536", function()
      assert.equal(65536, loss_scale.start(loss_scale.dynamic(), 10).scale)
    end)

    it("halves after a step that was not applied, and doubles after an interval of good ones", function()
      local state = loss_scale.start(loss_scale.dynamic { init = 8, growth_interval = 3 }, 10)
      assert.same({ 8, 8, 16, 16, 8, 8, 8, 16, 8, 4, 4 }, scales(state, "....x...xx."))
    end)

    it("accepts other factors", function()
      local state = loss_scale.start(loss_scale.dynamic { init = 16, growth_interval = 1, growth = 4, backoff = 0.25 }, 10)
      assert.same({ 64, 16, 4, 16 }, scales(state, ".xx."))
    end)

    it("counts the interval in epochs", function()
      local function interval(value, steps)
        return loss_scale.start(loss_scale.dynamic { growth_interval = value }, steps).interval
      end
      assert.equal(391, interval("1 epoch", 391))
      assert.equal(195, interval("0.5 epoch", 391))
      assert.equal(782, interval("2 epochs", 391))
      assert.equal(1, interval("0.5 epoch", 1))
      assert.equal(7, interval(7, 391))
    end)

    it("stays within the range of binary32", function()
      local up = loss_scale.start(loss_scale.dynamic { init = 2 ^ 125, growth_interval = 1 }, 10)
      assert.same({ 2.0 ^ 126, 2.0 ^ 126 }, scales(up, ".."))
      local down = loss_scale.start(loss_scale.dynamic { init = 2 ^ -23 }, 10)
      assert.same({ 2.0 ^ -24, 2.0 ^ -24 }, scales(down, "xx"))
      local min = loss_scale.start(loss_scale.dynamic { init = 2, min = 1 }, 10)
      assert.same({ 1, 1 }, scales(min, "xx"))
    end)

    it("continues from a saved state", function()
      local settings = loss_scale.dynamic { init = 8, growth_interval = 3 }
      local a, b = loss_scale.start(settings, 10), loss_scale.start(settings, 10)
      scales(a, "x..")
      b:restore(a:save())
      assert.same({ 8, 8, 8, 16 }, scales(b, "...."))
    end)

    it("names what is wrong", function()
      assert.error_matches(function() loss_scale.dynamic { init = 0 } end,
        "^loss_scale.dynamic: init = 0, must be a number from 2^%-24 to 2^126$")
      assert.error_matches(function() loss_scale.dynamic { growth_interval = "often" } end,
        'growth_interval = often, must be a number of steps or a text such as "1 epoch", "0.5 epoch"')
      assert.error_matches(function() loss_scale.dynamic { growth_interval = 0 } end, "growth_interval = 0")
      assert.error_matches(function() loss_scale.dynamic { growth_interval = "0 epoch" } end, "growth_interval = 0 epoch")
      assert.error_matches(function() loss_scale.dynamic { backoff = 1 } end, "backoff = 1, must be a number between 0 and 1")
      assert.error_matches(function() loss_scale.dynamic { growth = 0.5 } end, "growth = 0.5, must be a number of at least 1")
      assert.error_matches(function() loss_scale.dynamic { groth = 2 } end, "unknown option groth")
      assert.error_matches(function() loss_scale.check(2) end, "loss_scale: number, must be made by")
    end)
  end)

  it("static keeps its scale and does not apply bad steps", function()
    local state = loss_scale.start(loss_scale.static(128), 10)
    assert.same({ 128, 128 }, scales(state, "x."))
    assert.is_true(state.skip_nonfinite)
  end)

  it("none is a scale of 1, and every step is applied", function()
    local state = loss_scale.start(loss_scale.none(), 10)
    assert.same({ 1, 1 }, scales(state, "x."))
    assert.is_false(state.skip_nonfinite)
  end)
end)
