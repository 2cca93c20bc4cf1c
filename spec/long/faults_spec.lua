-- Every operation on the files of a run fails, in every way; then runs that are stopped again and again.
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

  it("comes to the same end when it is stopped again and again", function()
    for seed = 1, 50 do
      local ok, message = pcall(faults.check_stops, run, seed)
      assert.is_true(ok, ("%d: %s"):format(seed, message))
    end
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
