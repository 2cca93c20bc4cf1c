local argparse = require "argparse"
local dkjson = require "dkjson"
local core = require "mptl.core"
local bench = require "mptl.cmd.bench_loader"

describe("bench loader", function()
  local real_time, real_print = core.time, print
  local printed

  before_each(function()
    local now = 0
    core.time = function() -- a second passes between two readings of the clock
      now = now + 1
      return now
    end
    printed = {}
    _G.print = function(line) printed[#printed + 1] = line end -- luacheck: ignore 122
  end)

  after_each(function()
    core.time, _G.print = real_time, real_print -- luacheck: ignore 122
  end)

  local function parse(...)
    local parser = argparse("bench")
    bench.configure(parser)
    return parser:pparse{ ... }
  end

  it("counts the images of whole batches over the time they took, across epochs", function()
    local ok, args = parse("--limit-train", "70", "--batch", "32", "--seconds", "6", "--json")
    assert.is_true(ok)
    assert.equal(0, bench.run(args))
    -- An epoch has batches of 32, 32, 6. 8 batches warm up, then 6 are counted: 6, 32, 32, 6, 32, 32
    local result = dkjson.decode(printed[1])
    assert.near(140 / 6, result.images_per_s, 1e-9)
    assert.same({ "synthetic", 1 }, { result.dataset, result.threads })
    assert.matches('^{"dataset":"synthetic","images_per_s":23.33%d*,"threads":1}$', printed[1])
  end)

  it("prints a line for people", function()
    local _, args = parse("--limit-train", "64", "--batch", "64", "--threads", "2")
    bench.run(args)
    assert.same({ "synthetic: 64 images/s, 2 threads, batch 64" }, printed)
  end)

  it("names a wrong option", function()
    assert.same({ false, "--threads: 0, must be a positive integer" }, { parse("--threads", "0") })
    assert.same({ false, "--batch: 1.5, must be a positive integer" }, { parse("--batch", "1.5") })
    assert.same({ false, "--seconds: soon, must be a positive number" }, { parse("--seconds", "soon") })
    local _, args = parse("--limit-train", "100")
    assert.has_error(function() bench.run(args) end, "batch 128 is larger than the training set (100 images)")
  end)
end)
