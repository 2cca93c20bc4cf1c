-- Schedules that give each step its own learning rate, in training runs.
local json = require "mptl.json"
local runs = require "support.runs"

describe("a schedule by step", function()
  local dir

  -- A copy of the tiny script with a schedule: 9 steps, 3 in each of the 3 epochs.
  local function write(name, schedule)
    local text, n = runs.script:gsub('dataset = "synthetic"', function(field)
      return ("schedule = %s, %s"):format(schedule, field)
    end)
    assert.equal(1, n)
    runs.spill(("%s/%s.lua"):format(dir, name), text)
  end

  local function steps(out)
    local list = {}
    for line in runs.slurp(("%s/%s/steps.jsonl"):format(dir, out)):gmatch "[^\n]+" do
      list[#list + 1] = assert(json.decode(line))
    end
    return list
  end

  -- Trains with a wrong schedule; the run must stop before its first step with one line.
  local function fails(schedule)
    write("wrong", schedule)
    local code, out, err = runs.mptl(dir, "train wrong.lua --out wrong")
    assert.same({ 1, "" }, { code, out })
    assert.is_false(runs.exists(dir .. "/wrong/config.json"))
    return err
  end

  setup(function()
    dir = runs.directory()
    write("warm", [[mptl.schedule.by_step(function(step, steps, cfg)
      local warm_up = 4
      if step < warm_up then return cfg.lr * (step + 1) / warm_up end
      return cfg.lr / 2 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
    end)]])
    assert.equal(0, (runs.mptl(dir, "train warm.lua --lr 0.2 --out warm --steps-every 1 --quiet")))
  end)
  teardown(function() runs.remove(dir) end)

  it("gives the learning rates of warm-up and cosine to the steps", function()
    local list = steps "warm"
    assert.equal(9, #list)
    for i, step in ipairs(list) do
      local lr = i <= 4 and 0.2 * i / 4 or 0.1 * (1 + math.cos(math.pi * (i - 5) / 5))
      assert.equal(i, step.step)
      assert.near(lr, step.lr, 1e-14)
    end
  end)

  it("writes the learning rate of an epoch's last step to metrics.jsonl", function()
    local list = steps "warm"
    for epoch, metrics in ipairs(runs.metrics(dir .. "/warm")) do assert.equal(list[3 * epoch].lr, metrics.lr) end
  end)

  it("resumes bit for bit, in the middle and at the end of an epoch", function()
    for _, step in ipairs { 2, 3, 5 } do
      local out = "at" .. step
      local options = ("train warm.lua --lr 0.2 --out %s --steps-every 1 --quiet"):format(out)
      assert.equal(130, (runs.mptl(dir, options, "KILL=" .. step)))
      assert.equal(step, #steps(out))
      assert.equal(0, (runs.mptl(dir, options .. " --resume")))
      assert.same(runs.reproducible(dir .. "/warm"), runs.reproducible(dir .. "/" .. out))
      for _, file in ipairs { "steps.jsonl", "last.safetensors", "best.safetensors" } do
        assert.is_true(runs.same_files(("%s/warm/%s"):format(dir, file), ("%s/%s/%s"):format(dir, out, file)), file)
      end
    end
  end)

  it("trains as the schedule by epoch that gives the same learning rates", function()
    write("by_epoch", "mptl.schedule.cosine {}")
    write("by_step", [[mptl.schedule.by_step(function(step, steps, cfg)
      local epoch = step // (steps // cfg.epochs)
      return cfg.lr * 0.5 * (1 + math.cos(math.pi * epoch / cfg.epochs))
    end)]])
    for _, name in ipairs { "by_epoch", "by_step" } do
      assert.equal(0, (runs.mptl(dir, ("train %s.lua --out %s --quiet"):format(name, name))))
    end
    assert.same(runs.reproducible(dir .. "/by_epoch"), runs.reproducible(dir .. "/by_step"))
  end)

  it("may be one of the library with a warm-up", function()
    write("library", 'mptl.schedule.cosine { warmup = "1.5 epochs" }')
    write("own", [[mptl.schedule.by_step(function(step, steps, cfg)
      local epoch = step // 3
      return cfg.lr * (0.5 * (1 + math.cos(math.pi * epoch / cfg.epochs))) * math.min((step + 1) / 4, 1)
    end)]])
    for _, name in ipairs { "library", "own" } do
      assert.equal(0, (runs.mptl(dir, ("train %s.lua --out %s --steps-every 1 --quiet"):format(name, name))))
    end
    assert.is_true(runs.same_files(dir .. "/library/steps.jsonl", dir .. "/own/steps.jsonl"))
    assert.equal("1.5 epochs", json.decode(runs.slurp(dir .. "/library/config.json")).schedule.warmup)
    local code, _, err = runs.mptl(dir, "train by_epoch.lua --out library --resume")
    assert.equal(2, code)
    assert.matches('schedule is {"name":"cosine"}, was {.*"warmup":"1.5 epochs".*}; script', err)
  end)

  it("changes the training within an epoch", function()
    write("still", "mptl.schedule.by_step(function(step) return step < 4 and 0.1 or 0 end)")
    write("moving", "mptl.schedule.by_step(function(step) return 0.1 end)")
    for _, name in ipairs { "still", "moving" } do
      local options = ("train %s.lua --policy fp32 --out %s --steps-every 1 --quiet"):format(name, name)
      assert.equal(0, (runs.mptl(dir, options)))
    end
    local still, moving = steps "still", steps "moving"
    for i = 1, 9 do assert.equal(i <= 5, still[i].loss == moving[i].loss) end
  end)

  it("is called once for each step", function()
    write("counted", [[mptl.schedule.by_step(function(step)
      local log <close> = io.open("calls.txt", "a")
      log:write(step, " ")
      return 0.1
    end)]])
    assert.equal(0, (runs.mptl(dir, "train counted.lua --out counted --quiet")))
    -- the check before the training, then the training
    assert.equal("0 1 2 3 5 6 8 " .. "0 1 2 3 4 5 6 7 8 ", runs.slurp(dir .. "/calls.txt"))
  end)

  it("is not called by other commands", function()
    write("refuses", 'mptl.schedule.by_step(function() error "called" end)')
    for _, arguments in ipairs {
      "eval refuses.lua warm/last.safetensors --limit-test 20", "plan refuses.lua", "bench step refuses.lua --steps 1",
    } do
      local code, _, err = runs.mptl(dir, arguments)
      assert.same({ 0, "" }, { code, err })
    end
  end)

  it("is named in config.json, and another one cannot resume the run", function()
    assert.equal("by_step", json.decode(runs.slurp(dir .. "/warm/config.json")).schedule.name)
    local code, _, err = runs.mptl(dir, "train tiny.lua --lr 0.2 --out warm --resume")
    assert.equal(2, code)
    assert.equal('mptl train: --resume: warm/last.safetensors was made with other settings: schedule is {"name":"cosine"}, '
      .. 'was {"name":"by_step"}; script is tiny, was warm\n', err)
  end)

  it("with wrong values is refused before the training", function()
    local accepted = ", must be a finite number of at least 0\n"
    for value, text in pairs {
      ["nil"] = "nil", ["'0.1'"] = "0.1", ["{}"] = "a table", ["-1"] = "-1", ["1 / 0"] = "inf", ["- (0 / 0)"] = "nan",
    } do
      local err = fails(("mptl.schedule.by_step(function() return %s end)"):format(value))
      assert.equal("mptl: schedule: the function gave " .. text .. " for step 0 (of 0 to 8)" .. accepted, err)
    end
    for _, step in ipairs { 1, 2, 3, 5, 6, 8 } do
      assert.equal(("mptl: schedule: the function gave -0.5 for step %d (of 0 to 8)"):format(step) .. accepted,
        fails(("mptl.schedule.by_step(function(step) return step == %d and -0.5 or 0.1 end)"):format(step)))
    end
  end)

  it("that raises an error is refused before the training, with its line", function()
    local err = fails "mptl.schedule.by_step(function(step) if step == 8 then error 'too late' end return 1 end)"
    assert.matches("^mptl: schedule: the function failed for step 8 %(of 0 to 8%): wrong.lua:%d+: too late\n$", err)
    err = fails "mptl.schedule.by_step(function() error {} end)"
    assert.equal("mptl: schedule: the function failed for step 0 (of 0 to 8): a table\n", err)
    err = fails "function(epoch) return epoch + nil end"
    assert.matches("^mptl: schedule: the function failed for epoch 1: wrong.lua:%d+: attempt to perform arithmetic", err)
  end)

  it("that fails later stops the run, which keeps its last checkpoint", function()
    write("late", "mptl.schedule.by_step(function(step) return step ~= 4 and 0.1 or nil end)")
    local code, _, err = runs.mptl(dir, "train late.lua --policy fp32 --out late --quiet")
    assert.equal(1, code)
    assert.equal("mptl: schedule: the function gave nil for step 4 (of 0 to 8), must be a finite number of at least 0\n", err)
    assert.equal(1, #runs.metrics(dir .. "/late"))
    write("late", "mptl.schedule.by_step(function() return 0.1 end)")
    assert.equal(0, (runs.mptl(dir, "train late.lua --policy fp32 --out late --quiet --resume")))
    assert.same(runs.reproducible(dir .. "/moving"), runs.reproducible(dir .. "/late"))
  end)
end)
