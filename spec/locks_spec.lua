-- File systems without locks: messages give the reason and what to do.
local files = require "data_files"
local lfs = require "lfs"
local runs = require "support.runs"

if os.getenv "MPTL_SANITIZE" ~= "" then return end -- the library is not built there

local preload = os.getenv "MPTL_BUILD" .. "/lib/libmptl_no_locks.so"
local errors = { [37] = "No locks available", [95] = "Operation not supported" }

describe("without locks", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  local function mptl(number, arguments, more)
    return runs.mptl(dir, arguments, ("LD_PRELOAD=%s NO_LOCKS=%d %s"):format(preload, number, more or ""))
  end

  local function reason(path, number)
    return ("mptl: cannot lock %s: %s; if no other process uses these files, "
      .. "set MPTL_LOCKS=none\n")
      :format(path, errors[number])
  end

  for number in pairs(errors) do
    it("a training reports it: " .. errors[number], function()
      local out = "train" .. number
      local code, _, err = mptl(number, "train tiny.lua --quiet --epochs 1 --out " .. out)
      assert.equal(1, code)
      assert.equal(reason(out .. "/lock", number), err)
      assert.is_false(runs.exists(("%s/%s/config.json"):format(dir, out)))
      assert.equal(0, (mptl(number, "train tiny.lua --quiet --epochs 1 --out " .. out, "MPTL_LOCKS=none")))
      assert.equal(1, #runs.metrics(dir .. "/" .. out))
    end)
  end

  it("a sweep reports it, and trains if it may work without locks", function()
    runs.spill(dir .. "/s.lua", 'return { common = { epochs = 1 }, runs = { { script = "tiny", policy = "fp32" } } }')
    local code, out = mptl(37, "sweep s.lua --out sweep")
    assert.equal(1, code)
    assert.matches("failed    tiny%-fp32  mptl: cannot lock sweep/tiny%-fp32/lock: No locks available;", out)
    code, out = mptl(37, "sweep s.lua --out sweep --retry", "MPTL_LOCKS=none")
    assert.equal(0, code)
    assert.matches("done      tiny%-fp32  epoch 1/1", out)
  end)

  it("commands that write data sets report it", function()
    for _, layout in ipairs { "folder", "packed" } do
      local arguments = ("data synthesize set --layout %s --train 10 --test 10 --size 8 --quiet"):format(layout)
      local code, _, err = mptl(37, arguments)
      assert.same({ 1, reason("set.lock", 37) }, { code, err })
      assert.equal(0, (mptl(37, arguments, "MPTL_LOCKS=none")))
      runs.remove(dir .. "/set")
    end
    files.write(dir .. "/in/a/1.jpg", files.jpeg({ 9, 9, 9 }, 8, 8))
    local code, _, err = mptl(37, "data import in set.mptl")
    assert.same({ 1, reason("set.mptl.tmp", 37) }, { code, err })
    assert.equal(0, (mptl(37, "data import in set.mptl", "MPTL_LOCKS=none")))
    assert.equal("file", lfs.attributes(dir .. "/set.mptl", "mode"))
  end)

  it("other errors of a lock are reported unchanged", function()
    runs.spill(dir .. "/target", "")
    assert(lfs.link(dir .. "/target", dir .. "/linked.tmp", true))
    local code, _, err = runs.mptl(dir, "data import in linked")
    assert.same({ 1, "mptl: cannot write linked.tmp: Too many levels of symbolic links\n" }, { code, err })
    assert.equal("", runs.slurp(dir .. "/target"))
  end)
end)
