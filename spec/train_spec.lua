-- Training from the command line: metrics, files, interruption and resumption.
local json = require "mptl.json"
local runs = require "support.runs"

describe("mptl train", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  describe("a run", function()
    local code, out

    setup(function() code, out = runs.mptl(dir, "train tiny.lua --out a --steps-every 2") end)

    it("succeeds and prints a line for each epoch", function()
      assert.equal(0, code)
      assert.matches("run directory a\n", out)
      assert.matches("\nepoch 3/3  lr 0.025  train %d+%.%d+ %d+%.%d+%%  test %d", out)
      assert.is_nil(out:find("\27", 1, true)) -- no bar where there is no terminal
    end)

    it("writes a line for each epoch to metrics.jsonl, with these fields in this order", function()
      local fields = {}
      for field in runs.slurp(dir .. "/a/metrics.jsonl"):match "[^\n]+":gmatch '"([%w_]+)":' do fields[#fields + 1] = field end
      assert.same({
        "epoch", "lr", "train_loss", "train_acc", "test_loss", "test_acc", "test_acc_fp32", "loss_scale_log2_min",
        "loss_scale_log2_max", "skipped_steps", "promotions", "ratio_lo", "bits_ratio", "peak_bytes", "images_per_s", "seconds",
      }, fields)
    end)

    it("has the right metrics", function()
      local list = runs.metrics(dir .. "/a")
      assert.equal(3, #list)
      for i, m in ipairs(list) do
        assert.equal(i, m.epoch)
        assert.near(({ 0.1, 0.075, 0.025 })[i], m.lr, 1e-12)
        assert.near(math.log(10), m.train_loss, 3)
        assert.equal(0, m.train_acc * 40 % 100) -- of 40 images
        assert.equal(0, m.test_acc * 20 % 100) -- of 20 images
        assert.is_true(m.peak_bytes > 100000 and m.images_per_s > 0 and m.seconds > 0)
        assert.is_true(m.loss_scale_log2_min <= m.loss_scale_log2_max and m.skipped_steps <= 3)
      end
      -- the loss scale begins too high
      assert.is_true(list[1].skipped_steps > 0)
      -- the formats are too narrow: what was promoted is no longer low
      assert.is_true(list[3].promotions >= list[1].promotions and list[1].promotions > 0)
      assert.is_true(list[3].ratio_lo > 0 and list[3].ratio_lo < 0.5)
    end)

    it("writes its settings and its plan", function()
      local config = assert(json.decode(runs.slurp(dir .. "/a/config.json")))
      assert.same({ 16, 3, 1, "tiny", "stochastic", 0.9, 2 }, {
        config.batch, config.epochs, config.seed, config.script, config.rounding, config.optimizer.momentum,
        config.loss_scale.growth_interval,
      })
      local plan = assert(json.decode(runs.slurp(dir .. "/a/plan.json")))
      local _, planned = runs.mptl(dir, "plan tiny.lua --json")
      assert.same(json.decode(planned), plan)
    end)

    it("logs every promotion", function()
      local log = runs.slurp(dir .. "/a/run.log")
      local _, n = log:gsub("epoch %d step %d+: promoted %a+ of [%w_.]+ to FP%(6,9,0%)", "")
      assert.equal(runs.metrics(dir .. "/a")[3].promotions, n)
    end)

    it("writes every N-th step when asked to", function()
      local steps = {}
      for line in runs.slurp(dir .. "/a/steps.jsonl"):gmatch "[^\n]+" do steps[#steps + 1] = json.decode(line).step end
      assert.same({ 2, 4, 6, 8 }, steps)
    end)

    it("can be evaluated, with the same accuracies", function()
      local c, text = runs.mptl(dir, "eval tiny.lua a/last.safetensors --json")
      local result, last = json.decode(text), runs.metrics(dir .. "/a")[3]
      assert.equal(0, c)
      assert.equal(20, result.images)
      assert.equal(last.test_acc_fp32, result.test_acc_fp32)
      assert.equal(last.test_acc, result.test_acc)
      assert.equal(last.test_loss, result.test_loss)
      assert.equal(last.ratio_lo, result.ratio_lo)
    end)

    it("is the same for the same seed, and different for another", function()
      runs.mptl(dir, "train tiny.lua --out again --quiet")
      assert.same(runs.reproducible(dir .. "/a"), runs.reproducible(dir .. "/again"))
      assert.is_true(runs.same_files(dir .. "/a/last.safetensors", dir .. "/again/last.safetensors"))
      runs.mptl(dir, "train tiny.lua --out other --quiet --seed 2")
      assert.not_same(runs.reproducible(dir .. "/a"), runs.reproducible(dir .. "/other"))
    end)

    it("is not overwritten", function()
      local c, _, err = runs.mptl(dir, "train tiny.lua --out a")
      assert.equal(2, c)
      assert.equal("mptl train: --out a: holds a run already; --resume goes on with it, another directory begins anew\n", err)
    end)
  end)

  describe("interrupted", function()
    -- 3 steps an epoch: after 4 in the second epoch's middle, after 6 at its end before the test
    for _, step in ipairs { 1, 4, 6 } do
      it(("after step %d writes a checkpoint, exits with 130, and resumes bit for bit"):format(step), function()
        local out = "at" .. step
        local code, _, err = runs.mptl(dir, "train tiny.lua --out " .. out, "KILL=" .. step)
        assert.equal(130, code)
        local command = ("%s train tiny.lua --out %s --resume"):format(os.getenv "MPTL_BIN", out)
        assert.equal(("mptl: interrupted; go on with: %s\n"):format(command), err)
        assert.equal((step - 1) // 3, #runs.metrics(dir .. "/" .. out))
        assert.equal(0, (runs.mptl(dir, "train tiny.lua --resume --quiet --out " .. out)))
        assert.same(runs.reproducible(dir .. "/a"), runs.reproducible(dir .. "/" .. out))
        assert.is_true(runs.same_files(dir .. "/a/last.safetensors", dir .. "/" .. out .. "/last.safetensors"))
        assert.is_true(runs.same_files(dir .. "/a/best.safetensors", dir .. "/" .. out .. "/best.safetensors"))
      end)
    end
  end)

  it("prints a command that continues the run", function()
    local arguments = "train tiny.lua --lr 0.07 --width 2 --seed 5 --steps-every 2 --quiet --epochs 2"
    for _, name in ipairs { [[it's "a" $(name)]], "--odd" } do
      local quoted = "--out='" .. name:gsub("'", "'\\''") .. "'"
      local code, _, err = runs.mptl(dir, arguments .. " " .. quoted, "KILL=4")
      assert.equal(130, code)
      local command = assert(err:match "^mptl: interrupted; go on with: ([^\n]*)\n$")
      assert.is_true(os.execute(("cd %s && %s >pasted.txt 2>&1"):format(dir, command)))
      assert.equal("", runs.slurp(dir .. "/pasted.txt"))
      assert.equal(2, #runs.metrics(dir .. "/" .. name))
    end
    -- when the program chose the directory
    local _, _, err = runs.mptl(dir, "train tiny.lua --epochs 2 --batch 8 --quiet", "MPTL_PROGRAM=./mptl KILL=4")
    assert.matches("go on with: %./mptl train tiny.lua %-%-batch 8 %-%-epochs 2 %-%-quiet %-%-out runs/%S+ %-%-resume\n$", err)
    runs.remove(dir .. "/runs")
  end)

  it("writes its checkpoint when its terminal is closed", function()
    -- the second signal may come at any moment of the process's end
    local wait = "n=0; until [ -s hup/metrics.jsonl ] || [ $n = 600 ]; do sleep 0.1; n=$((n + 1)); done"
    local pause = "(" .. wait .. "; while kill -HUP $(cat pid); do sleep 0.01; done) 2>/dev/null &"
    local command = "cd %s && { %s sh -c 'echo $$ >pid; exec %s train tiny.lua --epochs 100000 --out hup' >/dev/full 2>hup.txt; }"
    local _, _, code = os.execute(command:format(dir, pause, os.getenv "MPTL_BIN"))
    assert.equal(130, code)
    assert.matches("^mptl: interrupted; go on with: [^\n]*\n$", runs.slurp(dir .. "/hup.txt"))
    assert.matches("interrupted at epoch", runs.slurp(dir .. "/hup/run.log"))
  end)

  describe("--resume", function()
    it("drops the lines after the checkpoint, and an incomplete line", function()
      runs.mptl(dir, "train tiny.lua --out cut --quiet", "KILL=4")
      local text = runs.slurp(dir .. "/cut/metrics.jsonl")
      runs.spill(dir .. "/cut/metrics.jsonl", text .. text:gsub('"epoch":1', '"epoch":2') .. '{"epoch":3,"lr')
      runs.mptl(dir, "train tiny.lua --resume --out cut --quiet")
      assert.same(runs.reproducible(dir .. "/a"), runs.reproducible(dir .. "/cut"))
    end)

    it("finds the newest run of the script and policy", function()
      local code = runs.mptl(dir, "train tiny.lua --quiet", "KILL=2")
      assert.equal(130, code)
      code = runs.mptl(dir, "train tiny.lua --quiet --resume")
      assert.equal(0, code)
      local found = io.popen("ls " .. dir .. "/runs")
      local names = found:read "a"
      found:close()
      assert.matches("^tiny%-policy%-%d+%-%d+\n$", names)
      assert.same(runs.reproducible(dir .. "/a"), runs.reproducible(dir .. "/runs/" .. names:sub(1, -2)))
    end)

    describe("finds files that lack lines before the checkpoint", function()
      local options = "train tiny.lua --quiet --steps-every 1 --tensors-every 2 --gradient-error 1 --out "

      -- Trains 7 of 9 steps, changes a file, continues; returns the errors.
      local function go_on(out, file, change)
        assert.equal(130, (runs.mptl(dir, options .. out, "KILL=7")))
        local path = ("%s/%s/%s"):format(dir, out, file)
        runs.spill(path, (change(runs.slurp(path))))
        local code, _, err = runs.mptl(dir, options .. out .. " --resume")
        assert.equal(0, code)
        local log = runs.slurp(("%s/%s/run.log"):format(dir, out))
        if err ~= "" then assert.is_truthy(log:find(err:match "^mptl: (.*)\n$", 1, true)) end
        return err
      end

      local function without(pattern)
        return function(text) return text:gsub(pattern, "") end
      end

      it("and says what is missing, and continues", function()
        local changes = select(2, runs.slurp(dir .. "/a/changes.jsonl"):gsub("\n", ""))
        assert.is_true(changes > 1)
        for file, case in pairs {
          ["metrics.jsonl"] = { without '{"epoch":1,[^\n]*\n',
            "lacks 1 of the 2 lines before the checkpoint, the first of them of epoch 1" },
          ["changes.jsonl"] = { function() return "" end,
            ("lacks %d of the %d lines before the checkpoint"):format(changes, changes) },
          ["steps.jsonl"] = { without '{"step":[67],.*$',
            "ends with a line of step 5, a line of step 7 was written before the checkpoint" },
          ["tensors.jsonl"] = { function() return "" end, "has no line, a line of step 6 was written before the checkpoint" },
          ["gradient_error.jsonl"] = { function(text) return text:sub(1, -2) end,
            "ends with a line of epoch 1, a line of epoch 2 was written before the checkpoint" },
        } do
          local out = "lost-" .. file
          assert.equal(("mptl: %s/%s: %s\n"):format(out, file, case[2]), go_on(out, file, case[1]))
          assert.is_true(runs.same_files(dir .. "/a/last.safetensors", ("%s/%s/last.safetensors"):format(dir, out)))
        end
      end)

      it("and says nothing when no line is missing", function()
        assert.equal("", go_on("more", "metrics.jsonl", function(text) return text .. '{"epoch":3}\n' end))
      end)
    end)

    it("names the settings that differ", function()
      local code, _, err = runs.mptl(dir, "train tiny.lua --resume --out a --batch 8 --epochs 5")
      assert.equal(2, code)
      assert.equal("mptl train: --resume: a/last.safetensors was made with other settings: "
        .. "batch is 8, was 16; epochs is 5, was 3\n", err)
    end)

    it("does not change a finished run", function()
      local before = runs.slurp(dir .. "/a/metrics.jsonl")
      assert.equal(0, (runs.mptl(dir, "train tiny.lua --resume --out a --quiet")))
      assert.equal(before, runs.slurp(dir .. "/a/metrics.jsonl"))
    end)

    it("says when there is nothing to resume", function()
      local code, _, err = runs.mptl(dir, "train tiny.lua --resume --out nothing")
      assert.same({ 2, "mptl train: --resume: nothing holds no run\n" }, { code, err })
    end)

    it("refuses a damaged checkpoint and keeps the run", function()
      runs.mptl(dir, "train tiny.lua --out damaged --quiet")
      local before = runs.slurp(dir .. "/damaged/metrics.jsonl")
      runs.spill(dir .. "/damaged/last.safetensors", runs.slurp(dir .. "/a/last.safetensors"):sub(1, -101))
      local code, _, err = runs.mptl(dir, "train tiny.lua --resume --out damaged")
      assert.equal(1, code)
      assert.matches("^mptl: damaged/last.safetensors: truncated: the header promises %d+ bytes, the file has %d+\n$", err)
      assert.equal(before, runs.slurp(dir .. "/damaged/metrics.jsonl"))
    end)
  end)
end)
