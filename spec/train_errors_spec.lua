-- What a training run says when something is wrong: one line, and nothing is lost.
local json = require "mptl.json"
local lfs = require "lfs"
local runs = require "support.runs"

describe("mptl train", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  --- Runs the tiny script; checks status, that there is one line of error, and returns that.
  local function fails(status, arguments, before)
    local code, _, err = runs.mptl(dir, arguments, before)
    assert.equal(status, code)
    assert.matches("^[^\n]+\n$", err)
    return err
  end

  describe("refuses", function()
    it("a batch larger than the set", function()
      assert.equal("mptl train: --batch 64: larger than the training set, accepted are 1 to its 40 images\n",
        fails(2, "train tiny.lua --out x --batch 64"))
      assert.is_false(runs.exists(dir .. "/x/config.json"))
    end)

    it("a batch that leaves too few images for the last one, before the first step", function()
      runs.spill(dir .. "/pixel.lua", (runs.script:gsub("kernel = 4, stride = 4", "kernel = 32"):gsub("256 %* cfg", "4 * cfg")))
      local why = "1 (batchnorm2d) normalises one value per channel, accepted are "
      assert.equal("mptl train: --batch 13: leaves 1 of the 40 training images for the last batch, but " .. why
        .. "sizes that leave none or at least 2\n", fails(2, "train pixel.lua --out x --batch 13"))
      assert.equal("mptl train: --batch 1: " .. why .. "batches of at least 2\n",
        fails(2, "train pixel.lua --out x --batch 1"))
      assert.is_false(runs.exists(dir .. "/x/config.json"))
      assert.equal(0, (runs.mptl(dir, "train pixel.lua --out well --batch 19 --epochs 1 --quiet")))
    end)

    it("to continue without the data set, and says where to get it", function()
      local err = fails(2, "train tiny.lua --out x --dataset cifar10 --data .")
      assert.matches("dataset cifar10: not found: looked in %. .*https://www.cs.toronto.edu.*%-%-dataset synthetic", err)
      assert.is_false(runs.exists(dir .. "/x/config.json"))
    end)

    it("a device that does not exist", function()
      assert.equal("mptl train: --device cuda:1: switched off by MPTL_CUDA_PLUGIN=none\n",
        fails(2, "train tiny.lua --out x --device cuda:1"))
    end)

    it("a schedule that fails in a later epoch, before the first one", function()
      runs.spill(dir .. "/late.lua", (runs.script:gsub('dataset = "synthetic"',
        'schedule = function(epoch) return epoch < 3 and 0.1 or -1 end, %0')))
      assert.equal("mptl: schedule: the function gave -1 for epoch 3, must be a finite number of at least 0\n",
        fails(1, "train late.lua --out x"))
      assert.is_false(runs.exists(dir .. "/x/config.json"))
    end)

    it("invalid settings", function()
      runs.spill(dir .. "/wrong.lua", (runs.script:gsub('dataset = "synthetic"', "optimizer = { lr = 1 }, %0")))
      assert.equal("mptl: wrong.lua: optimizer: table, must be made by mptl.optim.adamw, mptl.optim.sgd\n",
        fails(1, "train wrong.lua --out x"))
    end)

    it("an output directory that cannot be created", function()
      runs.spill(dir .. "/file", "")
      assert.matches("cannot make the directory file/x: Not a directory", fails(1, "train tiny.lua --out file/x"))
    end)
  end)

  it("names the line of a hook that raises an error, and keeps the last checkpoint", function()
    runs.spill(dir .. "/hook.lua", (runs.script:gsub('if steps == tonumber', 'if steps == 5 then error "my mistake" end\n%0')))
    assert.matches("^mptl: hook.lua:%d+: my mistake\n$", fails(1, "train hook.lua --out hook --quiet"))
    assert.equal(1, #runs.metrics(dir .. "/hook"))
    assert.matches("failed: hook.lua:%d+: my mistake", runs.slurp(dir .. "/hook/run.log"))
    assert.equal(0, (runs.mptl(dir, "eval hook.lua hook/last.safetensors")))
  end)

  it("keeps the old checkpoint when the disk is full", function()
    assert.equal(130, (runs.mptl(dir, "train tiny.lua --out full --quiet", "KILL=4")))
    local before = runs.slurp(dir .. "/full/last.safetensors")
    -- a limit of 16 blocks of 512 bytes: room for metrics and log, not for a checkpoint of 24 KB
    local err = fails(1, "train tiny.lua --resume --out full --quiet", "ulimit -f 16;")
    assert.matches("^mptl: cannot write full/%a+.safetensors: File too large\n$", err)
    assert.is_true(before == runs.slurp(dir .. "/full/last.safetensors"))
    for name in lfs.dir(dir .. "/full") do assert.is_nil(name:match "%.tmp") end
    runs.spill(dir .. "/full/last.safetensors.tmp-0123456789abcdef", "of a process that was killed")
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --resume --out full --quiet")))
    assert.equal(3, #runs.metrics(dir .. "/full"))
    for name in lfs.dir(dir .. "/full") do assert.is_nil(name:match "%.tmp") end
  end)

  describe("when the loss becomes NaN", function()
    setup(function()
      -- weights so large that the outputs are infinite: the loss is NaN, its gradients are, and the parameters stay
      runs.spill(dir .. "/huge.lua", [[
        local mptl = require "mptl"
        local nn = mptl.nn
        return {
          model = function() return nn.Sequential { nn.Flatten(), nn.Linear { 3072, 10, init = nn.init.constant(3e38) } } end,
          dataset = "synthetic", batch = 16, epochs = 2, limit_train = 32, limit_test = 20,
          precision = mptl.precision.uniform_low {
            formats = { high = "fp32", low = { v = "fp32", dv = "bf16", theta = "fp32", dtheta = "bf16" } },
          },
        }]])
    end)

    it("stops a run without loss scaling, and says at which step", function()
      local err = fails(1, "train huge.lua --quiet --out nan1 --policy fp32")
      assert.equal("mptl: epoch 1, step 1: the loss is NaN; stopped, before the first checkpoint\n", err)
      assert.is_false(runs.exists(dir .. "/nan1/last.safetensors"))
    end)

    it("continues while loss scaling keeps the parameters finite, and says so once an epoch", function()
      local code, _, err = runs.mptl(dir, "train huge.lua --quiet --out nan2")
      assert.equal(0, code)
      local said = {}
      for line in err:gmatch "[^\n]+" do said[#said + 1] = line:match "the loss is NaN; going on$" and line end
      local function nan(where) return ("mptl: %s: the loss is NaN; going on"):format(where) end
      assert.same({ nan "epoch 1, step 1", nan "epoch 2, step 3" }, said)
      local line = runs.slurp(dir .. "/nan2/metrics.jsonl"):match "[^\n]+"
      assert.matches('"train_loss":null', line)
      assert.equal(2, json.decode(line).skipped_steps)
      local list = runs.metrics(dir .. "/nan2")
      assert.same({ 15, 13 }, { list[1].loss_scale_log2_min, list[2].loss_scale_log2_min })
    end)

    it("stops or continues as the option says", function()
      fails(1, "train huge.lua --quiet --out nan3 --on-nan stop")
      assert.equal(0, (runs.mptl(dir, "train huge.lua --quiet --out nan4 --policy fp32 --on-nan continue")))
      assert.equal(2, #runs.metrics(dir .. "/nan4"))
    end)

    it("leaves the checkpoint of the last good epoch", function()
      runs.spill(dir .. "/blow.lua", (runs.script:gsub('dataset = "synthetic"',
        'schedule = function(epoch) return epoch == 1 and 0.1 or 1e30 end, %0')))
      local err = fails(1, "train blow.lua --quiet --out nan5 --policy fp32")
      assert.matches("^mptl: epoch 2, step %d: the loss is NaN; stopped, nan5/last.safetensors is of epoch 1\n$", err)
      local _, out = runs.mptl(dir, "eval blow.lua nan5/last.safetensors --policy fp32 --json")
      assert.equal(1, json.decode(out).epoch)
      assert.equal(runs.metrics(dir .. "/nan5")[1].test_loss, json.decode(out).test_loss)
    end)
  end)

  describe("when no step of an epoch is applied", function()
    setup(function()
      -- the loss gradient overflows: at the least loss scale too
      runs.spill(dir .. "/over.lua", [[
        local mptl = require "mptl"
        local nn = mptl.nn
        return {
          model = function() return nn.Sequential { nn.Flatten(), nn.Linear { 3072, 10 } } end,
          dataset = "synthetic", batch = 16, epochs = 2, limit_train = 160, limit_test = 20,
          loss_scale = mptl.loss_scale.dynamic { min = 2 ^ 12 },
          precision = mptl.precision.uniform_low {
            formats = { high = "fp32", low = { v = "fp16", dv = "FP(4,3,8)", theta = "fp16", dtheta = "fp16" } },
          },
        }]])
    end)

    local what = "none of its 10 steps was applied, the gradients were not finite; the loss scale is 2^12, and does not fall any "
      .. "more; most overflows: dv of nll_loss (FP(4,3,8), 100 %); "

    it("stops, names the tensors, and keeps a checkpoint from which it can continue", function()
      assert.equal("mptl: epoch 1: " .. what .. "stopped, over1/last.safetensors is of this epoch; "
        .. "--resume --on-skipped continue continues from it\n", fails(1, "train over.lua --quiet --out over1"))
      assert.equal(1, #runs.metrics(dir .. "/over1"))
      assert.equal(10, runs.metrics(dir .. "/over1")[1].skipped_steps)
      assert.matches("failed: epoch 1: none of its 10 steps", runs.slurp(dir .. "/over1/run.log"))
      local code, _, err = runs.mptl(dir, "train over.lua --quiet --out over1 --resume --on-skipped continue")
      assert.same({ 0, "mptl: epoch 2: " .. what .. "going on\n" }, { code, err })
      assert.equal(2, #runs.metrics(dir .. "/over1"))
    end)

    it("continues when asked to, and says so", function()
      local code, _, err = runs.mptl(dir, "train over.lua --quiet --out over2 --on-skipped continue")
      assert.same({ 0, "mptl: epoch 1: " .. what .. "going on\nmptl: epoch 2: " .. what .. "going on\n" }, { code, err })
      assert.matches("epoch 2: none of its 10 steps was applied", runs.slurp(dir .. "/over2/run.log"))
    end)

    it("does not count an epoch of which one step was applied", function()
      assert.equal(0, (runs.mptl(dir, "train tiny.lua --quiet --out some --epochs 1")))
      assert.is_true(runs.metrics(dir .. "/some")[1].skipped_steps > 0)
    end)
  end)

  it("prints the metrics as JSON when asked, and nothing else", function()
    local code, out, err = runs.mptl(dir, "train tiny.lua --json --out json")
    assert.same({ 0, "" }, { code, err })
    assert.equal(runs.slurp(dir .. "/json/metrics.jsonl"), out)
  end)

  it("stops when the metrics cannot be printed, after the checkpoint", function()
    local pipe = io.popen(("cd %s && { %s train tiny.lua --json --out nowhere >/dev/full; echo $?; } 2>&1"):format(dir,
      os.getenv "MPTL_BIN"))
    assert.equal("mptl: cannot write standard output: No space left on device\n1\n", pipe:read "a")
    pipe:close()
    assert.equal(1, #runs.metrics(dir .. "/nowhere"))
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --json --out nowhere --resume")))
  end)

  it("prints nothing when quiet", function()
    local code, out, err = runs.mptl(dir, "train tiny.lua --quiet --out quiet")
    assert.same({ 0, "", "" }, { code, out, err })
  end)
end)

describe("mptl eval", function()
  local dir

  setup(function()
    dir = runs.directory()
    runs.mptl(dir, "train tiny.lua --quiet --out a --epochs 1")
  end)
  teardown(function() runs.remove(dir) end)

  it("names the first tensor in which a checkpoint of another network differs", function()
    local code, _, err = runs.mptl(dir, "eval tiny.lua a/last.safetensors --width 2")
    assert.equal(1, code)
    assert.equal("mptl: a/last.safetensors: not a checkpoint of this network: 0.weight has the shape 4x3x4x4, "
      .. "the network's is 8x3x4x4\n", err)
  end)

  it("names a file that is missing or not a checkpoint", function()
    local code, _, err = runs.mptl(dir, "eval tiny.lua none.safetensors")
    assert.equal(2, code)
    assert.equal("mptl eval: checkpoint none.safetensors: no such file\n", err)
    _, _, err = runs.mptl(dir, "eval tiny.lua tiny.lua")
    assert.matches("^mptl: tiny.lua: not a safetensors file, or damaged: ", err)
  end)

  it("opens its checkpoint once: a training that replaces the file does not disturb it", function()
    runs.spill(dir .. "/replaced.safetensors", runs.slurp(dir .. "/a/last.safetensors"))
    runs.spill(dir .. "/replaces.lua", 'os.remove "replaced.safetensors" ' .. runs.script)
    local code, _, err = runs.mptl(dir, "eval replaces.lua replaced.safetensors")
    assert.same({ 0, "" }, { code, err })
    assert.is_false(runs.exists(dir .. "/replaced.safetensors"))
  end)

  it("prints one readable line", function()
    local code, out = runs.mptl(dir, "eval tiny.lua a/last.safetensors")
    assert.equal(0, code)
    assert.matches("^a/last.safetensors: 20 test images: loss %d+%.%d+, accuracy %d+%.00%%, in fp32 %d+%.00%% "
      .. "%(ratio_lo 0%.%d+%)\n$", out)
  end)
end)
