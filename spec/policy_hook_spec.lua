-- Policies that change formats while training: what they see, the effect of their changes, their mistakes.
local json = require "mptl.json"
local runs = require "support.runs"

local policy = [[
local steps = 0
return require("mptl").precision.policy(function(graph) graph:group(1):demote() end, {
  formats = { high = "FP(6,9,0)", low = { v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,4)", dtheta = "FP(6,9,0)" } },
  after_step = function(graph, stats, at)
    steps = steps + 1
    for _, s in ipairs(stats) do assert(graph:operator(s.operator)[s.role].format == s.format and s.overflow <= s.elements) end
    if steps == 2 then graph:group(2):demote() end
    if steps == 3 then graph:group(1):promote() end
    if steps == 4 then graph:operator("4").theta:set "bf16" end
    -- HERE
  end,
})
]]

-- The line of the policy's text that begins with these words.
local function line_of(text, words)
  local n = 0
  for line in text:gmatch "[^\n]*" do
    n = n + 1
    if line:find(words, 1, true) then return n end
  end
end

local function changes(dir)
  local list = {}
  for line in runs.slurp(dir .. "/changes.jsonl"):gmatch "[^\n]+" do
    local c = assert(json.decode(line))
    list[#list + 1] = ("%d %d %s.%s %s>%s %s"):format(c.step, c.epoch, c.operator, c.role, c.from, c.to, c.cause)
  end
  return list
end

describe("a policy's after_step", function()
  local dir

  setup(function()
    dir = runs.directory()
    runs.spill(dir .. "/p.lua", policy)
  end)
  teardown(function() runs.remove(dir) end)

  it("promotes and demotes; changes.jsonl has what changed", function()
    local code, _, err = runs.mptl(dir, "train tiny.lua --policy p.lua --epochs 2 --out a --quiet")
    assert.equal(0, code)
    assert.matches("^mptl: epoch 2: none of its 3 steps .* falls; most overflows: dv of nll_loss .*; going on\n$", err)
    local list = changes(dir .. "/a")
    local by_step = {}
    for _, text in ipairs(list) do
      local step = tonumber(text:match "^%d+")
      by_step[step] = (by_step[step] or 0) + 1
      assert.matches(step > 3 and " 2 [%w_.]+ " or " 1 [%w_.]+ ", text) -- 40 images in batches of 16: three steps an epoch
      assert.matches(" hook$", text)
      if step == 2 then assert.matches("FP%(6,9,0%)>FP%([45],[23],[04]%)", text) end
      if step == 3 then assert.matches("FP%([45],[23],[04]%)>FP%(6,9,0%)", text) end
    end
    assert.is_true(by_step[2] > 0 and by_step[3] > 0)
    assert.equal(1, by_step[4])
    assert.matches("^4 2 4.theta FP%([%d,]+%)>bf16 hook$", list[#list])
    local metrics = runs.metrics(dir .. "/a")
    assert.equal(0, by_step[1] or 0)
    assert.equal(by_step[3], metrics[1].promotions) -- to more bits; the demotions of step 2 do not count
    local bf16 = list[#list]:find("FP(6,9,0)>bf16", 1, true) and 0 or 1 -- has as many bits as FP(6,9,0)
    assert.equal(by_step[3] + bf16, metrics[2].promotions)
    local _, told = runs.slurp(dir .. "/a/run.log"):gsub("by the policy\n", "")
    assert.equal(#list, told)
  end)

  it("gives the same in packed as in emulated storage", function()
    for _, storage in ipairs { "packed", "emulated" } do
      runs.mptl(dir, ("train tiny.lua --policy p.lua --epochs 2 --quiet --storage %s --out %s"):format(storage, storage))
    end
    assert.same(runs.reproducible(dir .. "/packed"), runs.reproducible(dir .. "/emulated"))
    assert.same(changes(dir .. "/packed"), changes(dir .. "/emulated"))
  end)

  it("continues from the checkpoint's formats after --resume", function()
    local code = runs.mptl(dir, "train tiny.lua --out kept --quiet", "KILL=5")
    assert.equal(130, code)
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --out kept --quiet --resume")))
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --out whole --quiet")))
    local list = changes(dir .. "/whole")
    assert.is_true(#list > 0)
    for _, text in ipairs(list) do assert.matches(" overflow$", text) end
    assert.same(list, changes(dir .. "/kept"))
    assert.equal(#list, runs.metrics(dir .. "/whole")[3].promotions)
  end)

  it("measures the gradient error in the current formats, and does not change the training", function()
    runs.spill(dir .. "/calm.lua", (runs.script:gsub("2 %^ 24", "2 ^ 10")))
    runs.spill(dir .. "/without.lua", policy)
    runs.spill(dir .. "/with.lua", (policy:gsub("%-%- HERE", [[
      if steps == 2 then
        local now = at.gradient_error().gradient
        graph:group(0):demote()
        local low = at.gradient_error(2)
        graph:group(0):promote()
        assert(low.images == 32 and now.relative > 0 and low.gradient.relative > now.relative)
        assert(at.gradient_error().gradient.absolute == now.absolute)
      end
    ]])))
    for _, name in ipairs { "with", "without" } do
      local code, _, err = runs.mptl(dir, ("train calm.lua --policy %s.lua --out %s --epochs 2 --quiet"):format(name, name))
      assert.same({ 0, "" }, { code, err })
    end
    assert.same(runs.reproducible(dir .. "/without"), runs.reproducible(dir .. "/with"))
    assert.same(changes(dir .. "/without"), changes(dir .. "/with"))
  end)

  it("gets errors with its own line", function()
    local function mistake(code)
      local text = policy:gsub("%-%- HERE", code)
      runs.spill(dir .. "/wrong.lua", text)
      os.execute("rm -rf " .. dir .. "/w")
      local status, _, err = runs.mptl(dir, "train tiny.lua --policy wrong.lua --out w --quiet")
      assert.equal(1, status)
      return err:gsub(("wrong.lua:%d: "):format(line_of(text, code)), "AT ")
    end
    assert.matches('AT operator lin: the graph has none of that name', mistake 'graph:operator "lin"', 1, true)
    assert.matches("AT format FP(9,2,0)", mistake 'graph:operator("4").v:set "FP(9,2,0)"', 1, true)
    assert.matches("AT group 99: the graph has groups 0 to", mistake "graph:group(99):promote()", 1, true)
    assert.matches("AT gradient_error: 3 batches, accepted are 1 to the 2 whole ones", mistake "at.gradient_error(3)", 1, true)
    assert.matches("AT attempt to index a nil value", mistake "stats.nothing.here = 1", 1, true)
  end)

  it("that never returns is stopped, and the error has its line", function()
    for _, text in ipairs {
      "return require('mptl').precision.policy(function(graph)\nwhile true do graph:groups() end\nend, { time_limit = 0.2 })",
      "return require('mptl').precision.policy(function() end, { time_limit = 0.2, after_step = function()\n"
        .. "while true do end\nend })",
      "return require('mptl').precision.policy(function()\nwhile true do pcall(function() while true do end end) end\n"
        .. "end, { time_limit = 0.2 })",
    } do
      runs.spill(dir .. "/endless.lua", text)
      os.execute("rm -rf " .. dir .. "/e")
      local status, _, err = runs.mptl(dir, "train tiny.lua --policy endless.lua --out e --quiet")
      assert.equal(1, status)
      assert.matches("endless.lua:2: policy endless: has not returned after 0.2 s; accepted is a longer time_limit", err, 1, true)
    end
  end)

  it("is named when its candidate set is wrong", function()
    runs.spill(dir .. "/set.lua", "return require('mptl').precision.policy(function() end, { formats = 'fp32/FP(4,3,otto)' })")
    local status, _, err = runs.mptl(dir, "plan tiny.lua --policy set.lua")
    assert.equal(1, status)
    assert.matches("^mptl: set.lua: format FP%(4,3,otto%): not a format", err)
  end)
end)

describe("the policies in models/policies", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  -- 240 steps of two images
  local function train(name)
    local code, _, err = runs.mptl(dir, ("train tiny.lua --policy %s/models/policies/%s.lua --formats hfp8 --limit-train 480 " ..
      "--batch 2 --epochs 1 --quiet --out %s"):format(os.getenv "MPTL_ROOT", name, name))
    assert.same({ 0, "" }, { code, err })
    return runs.metrics(dir .. "/" .. name)[1].ratio_lo
  end

  it("least_lost keeps three quarters low after its trial", function()
    assert.is_true(train "least_lost" >= 0.75)
    for _, c in ipairs(changes(dir .. "/least_lost")) do assert.matches("^200 1 ", c) end
  end)

  it("saved_per_error makes 85 % low after its trial", function()
    assert.is_true(train "saved_per_error" >= 0.8) -- a tensor may be promoted again
    local steps = {}
    for _, c in ipairs(changes(dir .. "/saved_per_error")) do
      if c:match " hook$" then steps[c:match "^%d+"] = true end
    end
    assert.same({ ["200"] = true }, steps)
  end)

  it("promote_lost promotes at every hundredth step", function()
    assert.is_true(train "promote_lost" < 1)
    for _, c in ipairs(changes(dir .. "/promote_lost")) do assert.matches("^[12]00 1 ", c) end
  end)

  it("gradually begins high, and is low to its share from the sixth epoch on", function()
    assert.equal(0, train "gradually")
    local code = runs.mptl(dir, ("train tiny.lua --policy %s/models/policies/gradually.lua --formats hfp8 --limit-train 202 " ..
      "--batch 2 --epochs 6 --quiet --out six"):format(os.getenv "MPTL_ROOT"))
    assert.equal(0, code)
    local last = 0
    for epoch, m in ipairs(runs.metrics(dir .. "/six")) do
      assert.is_true(m.ratio_lo >= last - 0.05 and m.ratio_lo >= 0.9 * (epoch - 1) / 5 - 0.05) -- some may be promoted again
      last = m.ratio_lo
    end
  end)
end)
