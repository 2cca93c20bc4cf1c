local schedule = require "mptl.schedule"
local optim = require "mptl.optim"

local function rates(s, epochs, lr)
  local list = {}
  for epoch = 1, epochs do list[epoch] = schedule.lr(s, epoch, { lr = lr or 1, epochs = epochs }) end
  return list
end

local function assert_near(expected, got)
  assert.equal(#expected, #got)
  for i, x in ipairs(expected) do assert.near(x, got[i], 1e-15) end
end

describe("schedule", function()
  it("cosine anneals from lr towards 0 at the run's end", function()
    assert_near({ 0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5)) }, rates(schedule.cosine {}, 4, 0.1))
  end)

  it("cosine can have its own length", function()
    assert_near({ 1, 0.75, 0.25, 0 }, rates(schedule.cosine { epochs = 3 }, 4))
  end)

  it("step multiplies every so many epochs", function()
    assert_near({ 1, 1, 0.5, 0.5, 0.25 }, rates(schedule.step { every = 2, gamma = 0.5 }, 5))
  end)

  it("step multiplies after milestones", function()
    assert_near({ 1, 0.1, 0.1, 0.01 }, rates(schedule.step { milestones = { 1, 3 } }, 4))
  end)

  it("constant does not change", function()
    assert_near({ 1, 1, 1 }, rates(schedule.constant(), 3))
  end)

  it("may be a function of the epoch and the settings", function()
    local f = schedule.check(function(epoch, cfg) return cfg.lr / epoch end)
    assert_near({ 6, 3, 2 }, rates(f, 3, 6))
  end)

  it("names a function's wrong value", function()
    assert.has_error(function() rates(function() return "x" end, 1) end,
      "schedule: the function gave x for epoch 1, must be a number of at least 0")
  end)

  it("refuses unknown schedules and fields", function()
    assert.error_matches(function() schedule.cosine { tmax = 3 } end, "schedule.cosine: unknown option tmax")
    assert.error_matches(function() schedule.step {} end, "must have one of every and milestones")
    assert.error_matches(function() schedule.step { every = 0 } end, "schedule.step: every = 0, must be a number above 0")
    assert.error_matches(function() schedule.check "cosine" end, "schedule: string, must be made by")
  end)
end)

describe("optim.sgd", function()
  it("has the defaults of the method", function()
    local s = optim.sgd()
    assert.same({ 0.1, 0.9, 5e-4 }, { s.lr, s.momentum, s.weight_decay })
    assert.equal(s, optim.check(s))
  end)

  it("keeps its arguments, also zeros", function()
    local s = optim.sgd { lr = 0.5, momentum = 0, weight_decay = 0 }
    assert.same({ 0.5, 0, 0 }, { s.lr, s.momentum, s.weight_decay })
  end)

  it("names a wrong value and what is accepted", function()
    assert.error_matches(function() optim.sgd { momentum = 1 } end,
      "^optim.sgd: momentum = 1, must be a number of at least 0 and below 1$")
    assert.error_matches(function() optim.sgd { lr = 0 / 0 } end, "optim.sgd: lr = %-?nan, must be a number of at least 0$")
    assert.error_matches(function() optim.sgd { nesterov = true } end, "unknown option nesterov")
    assert.error_matches(function() optim.check {} end, "optimizer: table, must be made by mptl.optim.adamw, mptl.optim.sgd")
  end)
end)
