-- Sweeps: what a file describes, and running it by the program, with interruptions.
local core = require "mptl.core"
local json = require "mptl.json"
local process = require "support.process"
local runs = require "support.runs"
local slurm = require "mptl.sweep.slurm"
local sweep = require "mptl.sweep"

describe("a sweep file", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  -- The runs of a file with this table, as "name: arguments".
  local function expand(text, overrides)
    runs.spill(dir .. "/s.lua", 'local sweep = require "mptl.sweep" return ' .. text)
    local list = {}
    for i, run in ipairs(sweep.load(dir .. "/s.lua", overrides).runs) do
      list[i] = run.name .. ": " .. table.concat(sweep.arguments(run.settings), " ")
    end
    return list
  end

  local function mistake(text, overrides)
    local ok, message = pcall(expand, text, overrides)
    assert.is_false(ok)
    return (tostring(message):gsub("^" .. dir:gsub("%p", "%%%0") .. "/", ""))
  end

  it("is a list of runs that share settings", function()
    assert.same({
      "net-fp32: --epochs 2 --policy fp32 --threads 1",
      "net-demotion-ratio0.5: --epochs 2 --policy demotion --ratio 0.5 --threads 1",
    }, expand '{ common = { script = "net", epochs = 2 }, runs = { { policy = "fp32" }, { policy = "demotion", ratio = 0.5 } } }')
  end)

  it("describes every combination of its lists", function()
    assert.same({
      "a-width0.5-demotion-ratio0.3", "a-width0.5-demotion-ratio0.6", "a-width1-demotion-ratio0.3", "a-width1-demotion-ratio0.6",
      "b-width0.5-demotion-ratio0.3", "b-width0.5-demotion-ratio0.6", "b-width1-demotion-ratio0.3", "b-width1-demotion-ratio0.6",
    }, (function()
      local names = expand [[{ common = { script = { "a", "b.lua" }, width = { 0.5, 1 } },
        runs = { { policy = "demotion", ratio = { 0.3, 0.6 } } } }]]
      for i, text in ipairs(names) do names[i] = text:match "^[^:]*" end
      return names
    end)())
  end)

  it("makes ranges without rounding errors", function()
    assert.same({ 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1 }, sweep.range(0, 1, 0.1))
    assert.same({ 2 }, sweep.range(2, 2, 5))
  end)

  it("turns promotion off", function()
    assert.same({ "net-demotion-thresholdoff: --policy demotion --threshold off --threads 1" },
      expand '{ common = { script = "net" }, runs = { { policy = "demotion", threshold = false } } }')
  end)

  it("is overridden by the command line, except in what it varies", function()
    local text = '{ common = { script = "net", epochs = 9 }, runs = { { policy = { "fp32", "amp" } } } }'
    assert.same({ "net-fp32: --epochs 1 --policy fp32 --threads 2", "net-amp: --epochs 1 --policy amp --threads 2" },
      expand(text, { epochs = 1, threads = 2 }))
    assert.equal("--policy: " .. dir .. "/s.lua varies it itself, in runs[1]", mistake(text, { policy = "operator" }))
  end)

  it("names its mistakes", function()
    assert.equal('s.lua: runs[2]: unknown setting ration (did you mean "ratio"?), accepted are',
      mistake('{ common = { script = "n" }, runs = { {}, { ration = 1 } } }'):match "^(.-are) ")
    assert.equal("s.lua: runs[1]: ratio: 1.5, accepted are numbers from 0 to 1",
      mistake '{ runs = { { script = "n", ratio = { 1, 1.5 } } } }')
    assert.equal("s.lua: runs[1]: no script", mistake "{ runs = { { width = 1 } } }")
    assert.equal("s.lua: runs[1]: width: the list is empty", mistake '{ runs = { { script = "n", width = {} } } }')
    assert.equal("s.lua: runs[1] and runs[2] both make the run n-fp32",
      mistake '{ runs = { { script = "n", policy = "fp32" }, { script = "n", policy = "fp32" } } }')
    assert.equal("s.lua: returned a table without runs, must return { common = {...}, runs = { {...}, ... } }", mistake "{}")
    assert.matches('^s.lua: .*unknown option run %(did you mean "runs"%?%)', mistake "{ run = {}, runs = {} }")
    assert.equal("s.lua: name: a table, must be text, on one line", mistake "{ name = {}, runs = { { script = 'n' } } }")
    assert.equal("s.lua: runs[1]: width: the list is empty",
      mistake "{ runs = { { script = 'n', width = setmetatable({}, { __len = function() return {} end }) } } }")
    assert.matches("must be a path or a model's name", mistake "{ runs = { { script = 3 } } }")
  end)
end)

describe("slurm", function()
  it("writes tasks as ranges", function()
    assert.equal("1-3,5,7-8", slurm.ranges { 1, 2, 3, 5, 7, 8 })
  end)

  it("puts tasks into arrays whose numbers are no higher than the size", function()
    assert.same({ { first = 0, tasks = { 2, 3 } }, { first = 3, tasks = { 1 } }, { first = 9, tasks = { 1, 2 } } },
      slurm.arrays({ 2, 3, 4, 10, 11 }, 3))
  end)
end)

describe("mptl sweep", function()
  local dir
  local file = [[
return {
  common = { script = "tiny.lua", epochs = 2 },
  runs = { { policy = "fp32" }, { policy = "demotion", ratio = { 0.3, 1 } } },
}
]]

  before_each(function()
    dir = runs.directory()
    runs.spill(dir .. "/s.lua", file)
  end)
  after_each(function() runs.remove(dir) end)

  local function states(arguments)
    local code, out, err = runs.mptl(dir, "sweep s.lua --out o --list --json " .. (arguments or ""))
    assert.equal("", err)
    assert.equal(0, code)
    local list = {}
    for line in out:gmatch "[^\n]+" do
      local r = assert(json.decode(line))
      list[#list + 1] = ("%s %s %d"):format(r.name, r.state, r.epoch)
    end
    return list
  end

  -- Starts mptl, which leaves its process number and, in the end, its exit status in files.
  local function background(arguments)
    os.execute(("cd %s && { sh -c 'echo $$ >pid; exec %s %s'; echo $? >code.new; mv code.new code; } &"):format(dir,
      os.getenv "MPTL_BIN", arguments))
  end

  local function interrupt()
    os.execute(("kill -INT $(cat %s/pid)"):format(dir))
    process.wait_for(dir .. "/code")
    return runs.slurp(dir .. "/code"):match "%d+"
  end

  it("trains every run once, as mptl train would", function()
    assert.same({ "tiny-fp32 new 0", "tiny-demotion-ratio0.3 new 0", "tiny-demotion-ratio1 new 0" }, states())
    local code, out, err = runs.mptl(dir, "sweep s.lua --out o --jobs 2")
    assert.equal("", err)
    assert.equal(0, code)
    assert.matches("3 of 3 runs finished, 0 of them failed", out)
    assert.same({ "tiny-fp32 done 2", "tiny-demotion-ratio0.3 done 2", "tiny-demotion-ratio1 done 2" }, states())
    runs.mptl(dir, "train tiny.lua --policy demotion --ratio 1 --epochs 2 --threads 1 --out alone")
    assert.same(runs.reproducible(dir .. "/alone"), runs.reproducible(dir .. "/o/tiny-demotion-ratio1"))
    assert.is_true(runs.same_files(dir .. "/alone/last.safetensors", dir .. "/o/tiny-demotion-ratio1/last.safetensors"))

    local log = runs.slurp(dir .. "/o/tiny-fp32/run.log")
    local again = select(2, runs.mptl(dir, "sweep s.lua --out o"))
    assert.is_nil(again:find("begins", 1, true))
    assert.matches("done      tiny%-fp32  epoch 2/2", again)
    assert.equal(log, runs.slurp(dir .. "/o/tiny-fp32/run.log"))
    assert.equal("tiny-fp32", json.decode(runs.slurp(dir .. "/o/sweep.json")).runs[1].name)
  end)

  it("lists its runs with settings in the order of mptl train's options", function()
    runs.spill(dir .. "/s.lua", [[return { runs = { { script = "tiny", threads = 1, ratio = 0.5, dataset = "synthetic",
      policy = "demotion", width = 1, seed = 3, lr = 0.1, batch = 8, epochs = 1, storage = "packed" } } }]])
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o")))
    local settings = runs.slurp(dir .. "/o/sweep.json"):match '"settings":(%b{})'
    local names = {}
    for name in settings:gmatch '"([%w_]+)":' do names[#names + 1] = name end
    assert.equal("script dataset width batch epochs lr seed policy ratio storage threads", table.concat(names, " "))
  end)

  it("continues after an interruption bit for bit", function()
    -- KILL works on the script's own policy
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 2 }, runs = { { script = "tiny", seed = { 1, 2 } } } }')
    local code, out = runs.mptl(dir, "sweep s.lua --out o --jobs 1", "KILL=4")
    assert.equal(1, code)
    assert.matches("stopped   tiny%-seed1  epoch 1/2", out)
    assert.matches("2 runs were stopped from outside; the same command goes on", out)
    assert.same({ "tiny-seed1 begun 1", "tiny-seed2 begun 1" }, states())
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o")))
    assert.same({ "tiny-seed1 done 2", "tiny-seed2 done 2" }, states())
    runs.mptl(dir, "train tiny.lua --seed 2 --epochs 2 --threads 1 --out alone")
    assert.is_true(runs.same_files(dir .. "/alone/last.safetensors", dir .. "/o/tiny-seed2/last.safetensors"))
  end)

  it("reports a run's progress from its checkpoint, even if lines are missing", function()
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 2 }, runs = { { script = "tiny", seed = 1 } } }')
    local run = dir .. "/o/tiny-seed1"
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o")))
    local lines, checkpoint = runs.slurp(run .. "/metrics.jsonl"), runs.slurp(run .. "/last.safetensors")
    runs.spill(run .. "/metrics.jsonl", (lines:match "^[^\n]*\n"))
    assert.same({ "tiny-seed1 done 2" }, states())
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o")))
    -- cleared of its checkpoints
    runs.spill(run .. "/metrics.jsonl", lines)
    os.remove(run .. "/last.safetensors")
    assert.same({ "tiny-seed1 done 2" }, states())
    runs.spill(run .. "/metrics.jsonl", (lines:match "^[^\n]*\n"))
    assert.same({ "tiny-seed1 begun 0" }, states())
    -- stopped between the last line and the checkpoint
    runs.remove(run)
    assert.equal(1, (runs.mptl(dir, "sweep s.lua --out o", "KILL=6")))
    assert.same({ "tiny-seed1 begun 1" }, states())
    runs.spill(run .. "/metrics.jsonl", lines)
    assert.same({ "tiny-seed1 begun 1" }, states())
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o")))
    assert.is_true(checkpoint == runs.slurp(run .. "/last.safetensors"))
    -- a checkpoint that cannot be read
    runs.spill(run .. "/last.safetensors", checkpoint:sub(1, 1000))
    assert.same({ "tiny-seed1 begun 0" }, states())
    local code, out = runs.mptl(dir, "sweep s.lua --out o")
    assert.equal(1, code)
    assert.matches("failed    tiny%-seed1  mptl: o/tiny%-seed1/last.safetensors: not a safetensors file, or damaged", out)
  end)

  it("stops its runs when it is interrupted itself", function()
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 100000 }, runs = { { script = "tiny", policy = "fp32" } } }')
    background("sweep s.lua --out o >out.txt 2>err.txt")
    process.wait_for(dir .. "/o/tiny-fp32/last.safetensors")
    assert.equal("130", interrupt())
    assert.equal("mptl: interrupted; the same command goes on\n", runs.slurp(dir .. "/err.txt"))
    assert.matches("stopped   tiny%-fp32  epoch %d+/100000", runs.slurp(dir .. "/out.txt"))
    assert.matches("interrupted at epoch", runs.slurp(dir .. "/o/tiny-fp32/run.log"))
  end)

  it("stops its runs when they get the signal, too", function() -- as scancel does it
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 100000 }, runs = { { script = "tiny", policy = "fp32" } } }')
    background("sweep s.lua --out o >out.txt 2>err.txt")
    process.wait_for(dir .. "/o/tiny-fp32/last.safetensors")
    os.execute(("cd %s && kill -TERM $(cat pid) $(cat /proc/$(cat pid)/task/$(cat pid)/children)"):format(dir))
    process.wait_for(dir .. "/code")
    assert.equal("130", runs.slurp(dir .. "/code"):match "%d+")
    assert.matches("stopped   tiny%-fp32", runs.slurp(dir .. "/out.txt"))
    assert.matches("interrupted at epoch", runs.slurp(dir .. "/o/tiny-fp32/run.log"))
  end)

  it("counts a run that a killed sweep left as trained elsewhere, not as finished", function()
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 100000 }, runs = { { script = "tiny", policy = "fp32" } } }')
    background("sweep s.lua --out o >out.txt 2>err.txt")
    process.wait_for(dir .. "/o/tiny-fp32/last.safetensors")
    local children = ("cd %s && cat /proc/$(cat pid)/task/$(cat pid)/children >child; kill -KILL $(cat pid)"):format(dir)
    assert(os.execute(children))
    process.wait_for(dir .. "/code")
    local code, out = runs.mptl(dir, "sweep s.lua --out o")
    local listed = select(2, runs.mptl(dir, "sweep s.lua --out o --list"))
    os.execute(("kill -HUP $(cat %s/child)"):format(dir))
    assert.equal(0, code)
    assert.matches("elsewhere tiny%-fp32", out)
    assert.matches("0 of 1 runs finished, 0 of them failed", out)
    assert.matches("1 runs are trained by other processes; %-%-list shows how far they are", out)
    assert.matches("  1  running   tiny%-fp32  epoch %d+/100000", listed)
    for _ = 1, 200 do
      if states()[1]:find " begun " then break end
      os.execute "sleep 0.05"
    end
    assert.matches(" begun ", states()[1])
  end)

  it("counts a run as done when its last checkpoint is written, not before", function()
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 2 }, runs = { { script = "tiny", policy = "fp32" } } }')
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o")))
    assert.same({ "tiny-fp32 done 2" }, states())
    -- killed between the metrics of the last epoch and its checkpoint: the checkpoint of the epoch before exists
    runs.mptl(dir, "train tiny.lua --policy fp32 --epochs 1 --threads 1 --out first")
    os.execute(("cd %s && cp first/last.safetensors o/tiny-fp32"):format(dir))
    assert.same({ "tiny-fp32 begun 1" }, states())
    -- being written: who trains has the lock
    runs.spill(dir .. "/hold.lua", "lock = require 'mptl.core'.lock 'o/tiny-fp32/lock' io.open('held', 'w'):close() io.read()")
    local holder = io.popen(("cd %s && %s hold.lua"):format(dir, os.getenv "MPTL_LUA"), "w")
    process.wait_for(dir .. "/held")
    local held = states()
    holder:close()
    assert.same({ "tiny-fp32 running 2" }, held)
    os.remove(dir .. "/o/tiny-fp32/last.safetensors")
    assert.same({ "tiny-fp32 done 2" }, states()) -- removed to save room
  end)

  it("notices how its runs end if it was started with SIGCHLD ignored", function()
    local code, out = runs.mptl(dir, "sweep s.lua --out o --only ratio1 --epochs 1", "trap '' CHLD; timeout 60")
    assert.same({ 0, "1 of 1 runs finished" }, { code, out:match "1 of 1 runs finished" })
  end)

  it("divides the work with another sweep that starts at the same time", function()
    for trial = 1, 3 do
      local out = "o" .. trial
      background(("sweep s.lua --out %s --jobs 1 >other.txt 2>others_err.txt"):format(out))
      local code, _, err = runs.mptl(dir, ("sweep s.lua --out %s --jobs 1"):format(out))
      process.wait_for(dir .. "/code")
      assert.same({ 0, "" }, { code, err })
      assert.equal("0", runs.slurp(dir .. "/code"):match "%d+")
      assert.equal("", runs.slurp(dir .. "/others_err.txt"))
      for _, name in ipairs { "tiny-fp32", "tiny-demotion-ratio0.3", "tiny-demotion-ratio1" } do
        local log = runs.slurp(("%s/%s/%s/run.log"):format(dir, out, name))
        assert.equal(1, select(2, log:gsub("began: ", "")))
        assert.equal(2, #runs.metrics(("%s/%s/%s"):format(dir, out, name)))
        assert.is_false(runs.exists(("%s/%s/%s/failed"):format(dir, out, name)))
      end
      os.remove(dir .. "/code")
    end
  end)

  it("does not touch a run that another process trains", function()
    local train = "train tiny.lua --policy fp32 --epochs 100000 --threads 1 --out o/tiny-fp32"
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 100000 }, runs = { { script = "tiny", policy = "fp32" } } }')
    background(train .. " --quiet 2>/dev/null")
    process.wait_for(dir .. "/o/tiny-fp32/last.safetensors")
    local code, out, err = runs.mptl(dir, "sweep s.lua --out o")
    local _, _, twice = runs.mptl(dir, train .. " --resume")
    assert.equal("130", interrupt())
    assert.equal("", err)
    assert.equal(0, code)
    assert.matches("elsewhere tiny%-fp32", out)
    assert.equal("mptl train: --out o/tiny-fp32: another process trains into it\n", twice)
  end)

  it("reports what failed, continues with the others, and tries again only when asked to", function()
    runs.spill(dir .. "/tiny.lua", (runs.script:gsub("model = function%(cfg%)",
      'model = function(cfg) if cfg.policy == "fp32" and not io.open "well" and cfg.out then error("no luck", 0) end')))
    local code, out = runs.mptl(dir, "sweep s.lua --out o --jobs 2")
    assert.equal(1, code)
    assert.matches("failed    tiny%-fp32  mptl: no luck\n", out)
    assert.matches("3 of 3 runs finished, 1 of them failed", out)
    assert.same({ "tiny-fp32 failed 0", "tiny-demotion-ratio0.3 done 2", "tiny-demotion-ratio1 done 2" }, states())
    runs.spill(dir .. "/well", "")
    assert.equal(1, (runs.mptl(dir, "sweep s.lua --out o")))
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o --retry")))
    assert.equal("tiny-fp32 done 2", states()[1])
  end)

  it("ignores damaged lines of metrics", function()
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o --only fp32")))
    local metrics = runs.slurp(dir .. "/o/tiny-fp32/metrics.jsonl")
    runs.spill(dir .. "/o/tiny-fp32/metrics.jsonl", metrics .. '{"epoch":3}\n[1]\n{"epoch":4,"test_acc":"x"}\n')
    assert.same({ 0, "" }, { (runs.mptl(dir, "sweep s.lua --out o --list")), runs.slurp(dir .. "/err.txt") })
  end)

  it("does not mix runs of other settings", function()
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o --only fp32")))
    local code, _, err = runs.mptl(dir, "sweep s.lua --out o --only fp32 --lr 0.5")
    assert.equal(2, code)
    assert.equal("mptl sweep: o/tiny-fp32: was begun with other settings: lr is 0.5, was 0.1; another --out begins anew\n", err)
  end)

  it("continues runs if the settings that differ do not change results", function()
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o --only fp32 --on-nan stop")))
    local code, out = runs.mptl(dir, "sweep s.lua --out o --only fp32 --on-nan continue --list")
    assert.equal(0, code)
    assert.matches("^  1  done ", out)
  end)

  it("names what is wrong in a run's files", function()
    assert(os.execute("mkdir -p " .. dir .. "/o/tiny-fp32"))
    runs.spill(dir .. "/o/tiny-fp32/config.json", '{"epochs":1e300}')
    local code, _, err = runs.mptl(dir, "sweep s.lua --out o --only fp32 --list")
    assert.equal(2, code)
    assert.matches("^mptl sweep: o/tiny%-fp32: was begun with other settings: epochs is 2, was 1e%+300; ", err)
    runs.spill(dir .. "/o/tiny-fp32/config.json", "{}")
    code, _, err = runs.mptl(dir, "sweep s.lua --out o --only fp32 --list")
    assert.equal(2, code)
    assert.equal("mptl sweep: o/tiny-fp32/config.json: epochs: nil, accepted are whole numbers from 1 to 1000000\n", err)
    runs.spill(dir .. "/o/tiny-fp32/config.json", '{"epochs":2}')
    runs.spill(dir .. "/o/tiny-fp32/metrics.jsonl", '{"epoch":1}\n{"test_acc":"high"}\n')
    local out
    code, out, err = runs.mptl(dir, "sweep s.lua --out o --only fp32 --list")
    local from = core.time() -- a line without an end is ignored, however long
    runs.spill(dir .. "/o/tiny-fp32/metrics.jsonl", ("x"):rep(1 << 20))
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o --only fp32 --list")))
    assert.is_true(core.time() - from < 20)
    assert.same({ 0, "" }, { code, err })
    assert.matches("begun +tiny%-fp32", out)
  end)

  it("names unknown fields and values", function()
    for arguments, said in pairs {
      ["sweep none.lua"] = "mptl sweep: sweep none.lua: no such file\n",
      ["sweep s.lua --only x"] = "mptl sweep: --only x: no run of s.lua has a name with that in it\n",
      ["sweep s.lua --task 4"] = "mptl sweep: --task 4: s.lua has 3 runs\n",
      ["sweep s.lua --slurm --sbatch='-p \"cpu'"] = 'mptl sweep: --sbatch: -p "cpu: the quote " is not closed\n',
      ["sweep s.lua --slurm --array-size 0"] = "mptl sweep: --array-size: 0, accepted are whole numbers from 1\n",
      ["sweep s.lua --jobs 0"] = "mptl sweep: --jobs: 0, accepted are whole numbers from 1\n",
      ["sweep s.lua --ratio 1"] = "mptl sweep: --ratio: s.lua varies it itself, in runs[2]\n",
    } do
      local code, _, err = runs.mptl(dir, arguments)
      assert.equal(said, err)
      assert.equal(2, code)
    end
  end)
end)
