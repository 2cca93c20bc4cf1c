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

  it("has a warm-up of steps or of epochs where it is asked for", function()
    local function by_step(s)
      local list = {}
      for step = 0, 7 do list[step + 1] = schedule.lr(s, 1 + step // 4, { lr = 6, epochs = 2 }, step, 8) end
      return list
    end
    assert_near({ 2, 4, 6, 6, 6, 6, 6, 6 }, by_step(schedule.constant { warmup = 3 }))
    assert_near({ 6, 6, 6, 6, 6, 6, 6, 6 }, by_step(schedule.constant { warmup = 1 }))
    assert_near({ 1, 2, 3, 4, 5 / 2, 3, 3, 3 }, by_step(schedule.step { every = 1, gamma = 0.5, warmup = 6 }))
    assert_near({ 1.5, 3, 4.5, 6, 3, 3, 3, 3 }, by_step(schedule.cosine { warmup = "1 epoch" }))
    assert_near({ 3, 6, 6, 6, 3, 3, 3, 3 }, by_step(schedule.cosine { warmup = "0.5 epochs" }))
    assert.is_true(schedule.is_by_step(schedule.cosine { warmup = 3 }))
  end)

  it("may be a function of the epoch and the settings", function()
    local f = schedule.check(function(epoch, cfg) return cfg.lr / epoch end)
    assert_near({ 6, 3, 2 }, rates(f, 3, 6))
  end)

  it("names a function's wrong value", function()
    assert.has_error(function() rates(function() return "x" end, 1) end,
      "schedule: the function gave x for epoch 1, must be a finite number of at least 0")
  end)

  it("may be a function of the step, the number of steps and the settings", function()
    local s = schedule.check(schedule.by_step(function(step, steps, cfg) return cfg.lr * (1 - step / steps) end))
    for step = 0, 5 do assert.near(6 - step, schedule.lr(s, 1 + step // 3, { lr = 6, epochs = 2 }, step, 6), 1e-15) end
    assert.is_true(schedule.is_by_step(s))
    assert.is_false(schedule.is_by_step(schedule.cosine {}))
    assert.is_false(schedule.is_by_step(function() return 1 end))
  end)

  it("is checked for all steps of the first epoch, and the first and last step of the others", function()
    local function called(batches, epochs)
      local list = {}
      schedule.check_run(schedule.by_step(function(step, steps)
        list[#list + 1] = ("%d/%d"):format(step, steps)
        return 1
      end), { epochs = epochs, lr = 1 }, batches)
      return table.concat(list, " ")
    end
    assert.equal("0/8 1/8 2/8 3/8 4/8 7/8", called(4, 2))
    assert.equal("0/2 1/2", called(2, 1))
    assert.equal("0/3 1/3 2/3", called(1, 3))
    local epochs = {}
    schedule.check_run(function(epoch)
      epochs[#epochs + 1] = epoch
      return 1
    end, { epochs = 3 }, 4)
    assert.same({ 1, 2, 3 }, epochs)
  end)

  it("refuses unknown schedules and fields", function()
    assert.error_matches(function() schedule.cosine { tmax = 3 } end, "schedule.cosine: unknown option tmax")
    for _, warmup in ipairs { 0, 1.5, "soon", "0 epochs" } do
      for _, name in ipairs { "constant", "cosine", "step" } do
        assert.has_error(function() schedule[name] { warmup = warmup, every = name == "step" and 1 or nil } end,
          ('schedule.%s: warmup = %s, must be a number of steps or a text such as "1 epoch", "0.5 epoch"'):format(name, warmup))
      end
    end
    assert.error_matches(function() schedule.constant { every = 3 } end, "schedule.constant: unknown option every")
    assert.error_matches(function() schedule.step {} end, "must have one of every and milestones")
    assert.error_matches(function() schedule.step { every = 0 } end, "schedule.step: every = 0, must be a number above 0")
    assert.error_matches(function() schedule.by_step(0.1) end,
      "schedule.by_step: 0.1, must be a function%(step, steps, cfg%) that returns the learning rate")
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
