-- Sweeps as Slurm's job arrays, on a stand-in for sbatch (support/sbatch.lua).
local json = require "mptl.json"
local runs = require "support.runs"
local shell = require "mptl.shell"

describe("shell", function()
  it("quotes words so that a shell reads them back", function()
    for _, word in ipairs {
      "plain", "", "two words", "it's", '"$(x)" `y` \\ * ~ #', "--out=a b", "a\nb\tc\\'\1", "\240\159\152\128",
    } do
      local pipe = io.popen(("bash -c %s"):format(shell.quote("printf %s " .. shell.quote(word) .. "; printf ':'")))
      assert.equal(word .. ":", pipe:read "a")
      pipe:close()
      assert.is_nil(shell.quote(word):find "%c")
    end
  end)

  it("splits words as a shell does, and expands nothing", function()
    assert.same({ "--time=1:00", "-p", "two words", "it's", "$HOME;x", "", 'a"b' },
      shell.split([[--time=1:00  -p 'two words' it\'s $HOME;x '' "a\"b" ]], "--sbatch"))
  end)
end)

describe("mptl sweep --slurm", function()
  local dir

  before_each(function()
    dir = runs.directory()
    runs.spill(dir .. "/s.lua", [[
return {
  common = { script = "tiny.lua", epochs = 2 },
  runs = { { policy = "fp32" }, { policy = "demotion", ratio = { 0.3, 1 } } },
}
]])
    assert(os.execute("mkdir " .. dir .. "/bin"))
    runs.spill(dir .. "/bin/sbatch", '#!/bin/sh\nexec "$MPTL_LUA" "$MPTL_ROOT/spec/support/sbatch.lua" "$@"\n')
    os.execute("chmod +x " .. dir .. "/bin/sbatch")
  end)
  after_each(function() runs.remove(dir) end)

  local function sweep(arguments, before)
    return runs.mptl(dir, "sweep s.lua " .. arguments, (before or "") .. " PATH=$PWD/bin:$PATH")
  end

  local function states(options)
    local list = {}
    for line in select(2, runs.mptl(dir, "sweep s.lua --list --json " .. (options or "--out o"))):gmatch "[^\n]+" do
      local r = assert(json.decode(line))
      list[#list + 1] = ("%s %s %d"):format(r.name, r.state, r.epoch)
    end
    return list
  end

  it("submits the remaining runs as a job array", function()
    assert.equal(0, (runs.mptl(dir, "sweep s.lua --out o --only ratio1")))
    local code, out, err = sweep "--out o --slurm --jobs 4 --sbatch='--time=1:00:00 -p cpu --comment=\"a b;\"'"
    assert.same({ "submitted job 7: 2 runs\n", "", 0 }, { out, err, code })
    assert.equal("7 1-2%4 - --parsable|--time=1:00:00|-p|cpu|--comment=a b;|o/sweep.sbatch\n", runs.slurp(dir .. "/sbatch.txt"))
    assert.same({ "tiny-fp32 done 2", "tiny-demotion-ratio0.3 done 2", "tiny-demotion-ratio1 done 2" }, states())
    assert.matches("done      tiny%-fp32", runs.slurp(dir .. "/o/slurm-7_1.log"))
    assert.is_false(runs.exists(dir .. "/o/slurm-7_3.log"))
    assert.equal("nothing to run\n", select(2, sweep "--out o --slurm"))
  end)

  it("gets a signal before the time limit, and writes a checkpoint", function()
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 100000 }, runs = { { script = "tiny", policy = "fp32" } } }')
    assert.equal(0, (sweep("--out o --slurm", "TIME_LIMIT=o/tiny-fp32/last.safetensors timeout 60 env")))
    assert.matches("^tiny%-fp32 begun %d+$", states()[1])
    assert.matches("interrupted at epoch", runs.slurp(dir .. "/o/tiny-fp32/run.log"))
    assert.matches("stopped   tiny%-fp32", runs.slurp(dir .. "/o/slurm-7_1.log"))
  end)

  it("submits more runs than an array may have as several arrays, in sequence under a limit", function()
    runs.spill(dir .. "/s.lua", [[
local sweep = require "mptl.sweep"
return { runs = { { script = "tiny", policy = "fp32", seed = sweep.range(1, 1200, 1) } } }
]])
    local code, out, err = sweep("--out o --slurm", "NO_TASKS=1")
    assert.same({ "submitted job 7: 1000 runs\nsubmitted job 8: 200 runs\n", "", 0 }, { out, err, code })
    assert.equal("7 1-1000 - --parsable|o/sweep-1.sbatch\n8 1-200 - --parsable|o/sweep-2.sbatch\n",
      runs.slurp(dir .. "/sbatch.txt"))
    assert.matches('%-%-task "%$%(%(SLURM_ARRAY_TASK_ID %+ 1000%)%)"\n$', runs.slurp(dir .. "/o/sweep-2.sbatch"))
    os.remove(dir .. "/sbatch.txt")
    sweep("--out o --slurm --jobs 5 --array-size 500", "NO_TASKS=1")
    assert.matches("^7 1%-500%%5 %- .*\n8 1%-500%%5 afterany:7 .*\n9 1%-200%%5 afterany:8 ", runs.slurp(dir .. "/sbatch.txt"))
    local _, _, refused = sweep("--out o --slurm", "NO_TASKS=1 MAX_ARRAY=1000")
    assert.equal("mptl: sbatch o/sweep-1.sbatch: sbatch: error: Batch job submission failed: Invalid job array specification; "
      .. "of 2 arrays 0 were submitted before\n", refused)
  end)

  it("runs the right task of a later array", function()
    assert.equal(0, (sweep "--out o --slurm --array-size 2"))
    assert.same({ "tiny-fp32 done 2", "tiny-demotion-ratio0.3 done 2", "tiny-demotion-ratio1 done 2" }, states())
    assert.matches("done      tiny%-demotion%-ratio1", runs.slurp(dir .. "/o/slurm-8_1.log"))
  end)

  it("accepts any --out without control characters and backslashes", function()
    local name = [[--it's "100%A" #1 $(touch injected)]]
    local out = "'" .. name:gsub("'", "'\\''") .. "'"
    local code, _, err = sweep(("--out=%s --slurm --only fp32"):format(out))
    assert.same({ "", 0 }, { err, code })
    assert.same({ "tiny-fp32 done 2" }, states(("--only fp32 --out=%s"):format(out)))
    assert.is_true(runs.exists(dir .. "/" .. name .. "/slurm-7_1.log"))
    assert.is_false(runs.exists(dir .. "/injected"))
    for word, said in pairs {
      ["--out \"$(printf 'a\\ntouch injected')\""] = "--slurm with --out: $'a\\012touch injected': holds a control character",
      ["--out 'a\\b'"] = "--slurm with --out: 'a\\b': holds a backslash",
      ["--data \"$(printf 'a\\tb')\""] = "--slurm: $'a\\011b': holds a control character",
      ["--sbatch=\"--comment='$(printf 'a\\nb')'\""] = "--sbatch: $'--comment=a\\012b': holds a control character",
    } do
      local c, _, e = sweep("--slurm " .. word)
      assert.same({ "mptl sweep: " .. said .. ", accepted are words without\n", 2 }, { e, c })
    end
    assert.is_false(runs.exists(dir .. "/sweeps"))
  end)

  it("says that sbatch is missing", function()
    local code, _, err = runs.mptl(dir, "sweep s.lua --out o --slurm", "PATH=/usr/bin:/bin")
    if os.execute "command -v sbatch >/dev/null" then return end
    assert.same({ "mptl: sbatch o/sweep.sbatch: there is no sbatch here; a cluster's login node has it\n", 1 }, { err, code })
  end)
end)
