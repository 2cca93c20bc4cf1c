-- Every operation on the files of a run fails, in every way; runs that are stopped again and again; every allocation fails.
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

  for _, kind in ipairs(faults.kinds) do
    it("ends as it has to at every operation, and goes on to the same files: " .. kind, function()
      assert.same({}, faults.check_all(run, function(k) return k == kind end))
    end)
  end

  it("is told as failed by a sweep, which tries it again when it is told to", function()
    for _, kind in ipairs { "ENOSPC", "EIO", "full" } do
      for at = 1, #run.operations do
        local ok, message = pcall(faults.check_sweep, run, kind, at)
        assert.is_true(ok, ("%s at operation %d: %s"):format(kind, at, message))
      end
    end
  end)

  it("comes to the same end when it is stopped again and again, a thousand times in all", function()
    local stops, seed = 0, 0
    while stops < 1000 do
      seed = seed + 1
      local ok, found = pcall(faults.check_stops, run, seed)
      assert.is_true(ok, ("%d: %s"):format(seed, found))
      stops = stops + found
    end
    print(("%d runs were stopped %d times"):format(seed, stops))
  end)
end)

describe("a command whose files fail", function()
  local dir

  setup(function() dir = faults.command_directory() end)
  teardown(function() runs.remove(dir) end)

  for _, case in ipairs(faults.commands) do
    it("says so and leaves nothing half written: " .. case[1], function()
      assert.same({}, faults.check_command(dir, case, math.huge))
    end)
  end
end)

-- All of what a small network needs; should it become more one day, a sample of what is beyond.
local function pick(at)
  return at <= 2000 or at % 101 == 0
end

describe("a run that gets no memory", function()
  local run

  setup(function() run = faults.create() end)
  teardown(function() runs.remove(run.dir) end)

  it("says what for at every allocation, keeps its checkpoint, and goes on to the same files", function()
    assert.same({}, faults.check_memory(run, pick))
  end)
end)

describe("a command that gets no memory", function()
  local dir

  setup(function() dir = faults.command_directory() end)
  teardown(function() runs.remove(dir) end)

  for _, command in ipairs(faults.allocating) do
    it("says what for at every allocation, or goes on as if nothing had been: " .. command, function()
      assert.same({}, faults.check_command_memory(dir, command, pick))
    end)
  end
end)
