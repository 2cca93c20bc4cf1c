--- The specs of files and memory that fail (support/faults.lua): spec/faults_spec.lua runs a sample of
-- them, spec/long/faults_spec.lua all.
local faults = require "support.faults"
local runs = require "support.runs"

--- Declares the specs.
-- @param _ENV the environment of the spec file, in which busted has describe and it
-- @param sample what to try, a table:
--   operations  function (index of a kind of fault, number of operations) -> function (at) -> boolean
--   sweeps      function (number of operations) -> list of {kind of fault, at which operation}
--   stops       how often runs must be stopped in all
--   most        the most operations of a command to try with each kind of fault
--   allocations, command_allocations   functions (at, how many there are, command) -> boolean
return function(_ENV, sample) -- luacheck: ignore 212/_ENV
  if not faults.available then
    describe("a run whose files fail", function() pending "needs a build without sanitizers" end)
    return
  end

  describe("a run", function()
    local run

    setup(function() run = faults.create() end)
    teardown(function() runs.remove(run.dir) end)

    describe("whose files fail", function()
      it("opens, writes, syncs and closes all files by calls that the library counts", function()
        local seen = {}
        for _, o in ipairs(run.operations) do seen[o.name .. " " .. o.file] = true end
        for _, name in ipairs {
          "metrics.jsonl", "steps.jsonl", "changes.jsonl", "tensors.jsonl", "gradient_error.jsonl", "run.log",
          "events.out.tfevents", "last.safetensors.tmp", "best.safetensors.tmp", "config.json.tmp", "plan.json.tmp",
        } do
          for _, operation in ipairs { "open", "write", "fsync", "close" } do
            assert.is_true(seen[operation .. " " .. name], operation .. " " .. name)
          end
        end
      end)

      for i, kind in ipairs(faults.kinds) do
        it("reports it, keeps its checkpoint, and continues to the same files: " .. kind, function()
          local is_picked = sample.operations(i, #run.operations)
          assert.same({}, faults.check_all(run, function(k, at) return k == kind and is_picked(at) end))
        end)
      end

      it("is reported as failed by a sweep, which tries it again when asked to", function()
        for _, case in ipairs(sample.sweeps(#run.operations)) do
          local ok, message = pcall(faults.check_sweep, run, case[1], case[2])
          assert.is_true(ok, ("%s at operation %d: %s"):format(case[1], case[2], message))
        end
      end)

      it("comes to the same end when it is stopped again and again", function()
        local stops, seed = 0, 0
        while stops < sample.stops do
          seed = seed + 1
          local ok, found = pcall(faults.check_stops, run, seed)
          assert.is_true(ok, ("%d: %s"):format(seed, found))
          stops = stops + found
        end
      end)
    end)

    it("that gets no memory says for what, keeps its checkpoint, and continues to the same files", function()
      assert.same({}, faults.check_memory(run, sample.allocations))
    end)
  end)

  describe("a command", function()
    local dir

    setup(function() dir = faults.command_directory() end)
    teardown(function() runs.remove(dir) end)

    for _, case in ipairs(faults.commands) do
      it("whose files fail says so and leaves no incomplete file: " .. case[1], function()
        assert.same({}, faults.check_command(dir, case, sample.most))
      end)
    end

    for _, command in ipairs(faults.allocating) do
      it("that gets no memory says for what, or prints what it prints otherwise: " .. command, function()
        assert.same({}, faults.check_command_memory(dir, command, function(at, count)
          return sample.command_allocations(at, count, command)
        end))
      end)
    end
  end)
end
