-- Files and memory that fail: a sample of what spec/long/faults_spec.lua goes through.
local faults = require "support.faults"
local runs = require "support.runs"

if not faults.available then
  describe("a run whose files fail", function() pending "needs a build without sanitizers" end)
  return
end

describe("a run whose files fail", function()
  local run

  setup(function() run = faults.create() end)
  teardown(function() runs.remove(run.dir) end)

  it("does what the library counts: all files are written, synced, closed", function()
    local seen = {}
    for _, o in ipairs(run.operations) do seen[o.name .. " " .. o.file] = true end
    for _, name in ipairs {
      "metrics.jsonl", "steps.jsonl", "changes.jsonl", "tensors.jsonl", "gradient_error.jsonl", "run.log", "events.out.tfevents",
      "last.safetensors.tmp", "best.safetensors.tmp", "config.json.tmp", "plan.json.tmp",
    } do
      for _, operation in ipairs { "open", "write", "fsync", "close" } do
        assert.is_true(seen[operation .. " " .. name], operation .. " " .. name)
      end
    end
  end)

  for i, kind in ipairs(faults.kinds) do
    it("ends as it has to, keeps its checkpoint, and goes on to the same files: " .. kind, function()
      local every = #run.operations // 4
      assert.same({}, faults.check_all(run, function(k, at)
        -- the first applicable one of each quarter, from another place for each kind
        return k == kind and at % every == (i - 1) * every // #faults.kinds
      end))
    end)
  end

  it("is told as failed by a sweep, which tries it again when it is told to", function()
    for at = 1, #run.operations, #run.operations // 4 do faults.check_sweep(run, "EIO", at) end
  end)

  it("comes to the same end when it is stopped again and again", function()
    for seed = 1, 2 do faults.check_stops(run, seed) end
  end)
end)

describe("a command whose files fail", function()
  local dir

  setup(function() dir = faults.command_directory() end)
  teardown(function() runs.remove(dir) end)

  for _, case in ipairs(faults.commands) do
    it("says so and leaves nothing half written: " .. case[1], function()
      assert.same({}, faults.check_command(dir, case, 5))
    end)
  end
end)

describe("a run that gets no memory", function()
  local run

  setup(function() run = faults.create() end)
  teardown(function() runs.remove(run.dir) end)

  it("says what for, keeps its checkpoint, and goes on to the same files", function()
    assert.same({}, faults.check_memory(run, function(at, count) return at % 29 == 0 or at == 1 or at == count end))
  end)
end)

describe("a command that gets no memory", function()
  local dir

  setup(function() dir = faults.command_directory() end)
  teardown(function() runs.remove(dir) end)

  for _, command in ipairs(faults.allocating) do
    it("says what for, or goes on as if nothing had been: " .. command, function()
      local every = command:find "^bench" and 37 or 13
      assert.same({}, faults.check_command_memory(dir, command, function(at, count)
        return at % every == 0 or at == count
      end))
    end)
  end
end)
