local core = require "mptl.core"
local data = require "mptl.data"
local files = require "data_files"
local json = require "mptl.json"
local lfs = require "lfs"
local process = require "support.process"

describe("mptl data synthesize", function()
  local dir, out

  before_each(function()
    dir = files.directory()
    out = dir .. "/set"
  end)
  after_each(function() files.remove(dir) end)

  local function synthesize(...)
    local result = process.mptl { "data", "synthesize", out, ... }
    assert.same({ "", 0 }, { result.err, result.status })
    assert.is_nil(lfs.attributes(out .. ".tmp"))
    assert.is_nil(lfs.attributes(out .. ".lock"))
    return result.out
  end

  local function check()
    local result = process.mptl { "data", "check", out, "--json" }
    return assert(json.decode(result.out)), result.status
  end

  it("writes the built-in images in CIFAR-10's layout", function()
    assert.equal(("wrote %s: 30 training and 20 test images of 10 classes\n"):format(out),
      synthesize("--train", "30", "--test", "20", "--seed", "7"))
    local opened = data.open { dataset = "cifar10", dir = out }
    for split, count in pairs { train = 30, test = 20 } do
      local built_in = core.dataset_synthetic { count = count, seed = 7, split = split }
      assert.equal(count, opened[split]:count())
      for _, i in ipairs { 1, 12, count } do
        assert.equal(built_in:label(i), opened[split]:label(i))
        assert.equal(built_in:image(i):tostring(), opened[split]:image(i):tostring())
      end
    end
    local t, status = check()
    assert.same({ "class9", 0 }, { t.classes[10], status })
  end)

  it("writes files of 10000 records, as the published set has", function()
    synthesize("--train", "10010", "--test", "1")
    assert.equal(10000 * 3073, lfs.attributes(out .. "/cifar-10-batches-bin/data_batch_1.bin", "size"))
    assert.equal(10 * 3073, lfs.attributes(out .. "/cifar-10-batches-bin/data_batch_2.bin", "size"))
  end)

  it("writes CIFAR-100's layout, with two labels an image", function()
    synthesize("--layout", "cifar100", "--train", "200", "--test", "100")
    local t, status = check()
    assert.same({ "cifar100", "class00", "class99", 0 }, { t.kind, t.classes[1], t.classes[100], status })
    assert.equal("\19\99", files.read(out .. "/cifar-100-binary/test.bin"):sub(99 * 3074 + 1, 99 * 3074 + 2))
  end)

  it("writes a folder of JPEG images of the classes and size that are asked for", function()
    synthesize("--layout", "folder", "--train", "24", "--test", "12", "--classes", "12", "--size", "20x9")
    local t, status = check()
    assert.same({ "folder", 0, { 20, 9 }, { 20, 9 } }, { t.kind, status, t.train.min, t.train.max })
    assert.same({ "class00", "class11", 12, 2 }, { t.classes[1], t.classes[12], #t.train.counts, t.train.counts[12] })
  end)

  it("draws sizes from a range, the same for the same seed", function()
    local function sizes(seed)
      synthesize("--layout", "packed", "--train", "40", "--test", "5", "--size", "8-40", "--seed", seed)
      local t, bytes = check(), files.read(out)
      os.remove(out)
      return t, bytes
    end
    local a, same = sizes "3"
    local _, again = sizes "3"
    local b = sizes "4"
    assert.equal(same, again)
    assert.is_true(a.train.min[1] >= 8 and a.train.min[1] < 16 and a.train.max[2] <= 40 and a.train.max[2] > 32)
    assert.not_same(a.mean, b.mean)
  end)

  it("gives packed and folder the same images", function()
    synthesize("--layout", "folder", "--train", "20", "--test", "10")
    local folder = core.images_folder { path = out }
    os.rename(out, dir .. "/other")
    synthesize("--layout", "packed", "--train", "20", "--test", "10")
    local packed = core.images_packed { path = out }
    for i = 1, 20 do
      assert.same({ packed:name(i), packed:label(i), packed:read(i) }, { folder:name(i), folder:label(i), folder:read(i) })
    end
  end)

  for layout, made in pairs { folder = "/train", packed = ".tmp" } do
    it("does not touch a " .. layout .. " that another process is writing", function()
      local pipe = io.popen(("echo $$; exec '%s' data synthesize '%s' --layout %s --train 2000 --test 10 2>&1")
        :format(os.getenv "MPTL_BIN", out, layout))
      local pid = pipe:read "l"
      process.wait_for(out .. ".tmp" .. made)
      os.execute("kill -STOP " .. pid)
      local second = process.mptl { "data", "synthesize", out, "--layout", layout }
      os.execute("kill -CONT " .. pid)
      local first = pipe:read "a"
      pipe:close()
      assert.same({ ("mptl data: OUT: %s: another process is writing it\n"):format(out), 2 }, { second.err, second.status })
      assert.equal(("wrote %s: 2000 training and 10 test images of 10 classes\n"):format(out), first)
      assert.equal(2000, (check()).train.images)
      assert.is_nil(lfs.attributes(out .. ".lock"))
    end)
  end

  it("continues what an interrupted process left", function()
    files.write(out .. ".lock", "")
    files.write(out .. ".tmp/train/class0/0000009.jpg", "")
    synthesize("--layout", "folder", "--train", "10", "--test", "10")
    assert.equal(10, (check()).train.images)
  end)

  it("names a wrong argument, and what is accepted", function()
    local function wrong(message, ...)
      local result = process.mptl { "data", "synthesize", out, ... }
      assert.same({ "", "mptl data: " .. message .. "\n", 2 }, { result.out, result.err, result.status })
      assert.is_nil(lfs.attributes(out))
    end
    wrong('--layout: foldr, accepted are cifar10, cifar100, folder, packed (did you mean "folder"?)', "--layout", "foldr")
    wrong("--size: 0, accepted are N, WIDTHxHEIGHT and LEAST-MOST, of 1 to 1024 pixels", "--size", "0", "--layout", "folder")
    wrong("--size: 64-32, accepted are N, WIDTHxHEIGHT and LEAST-MOST, of 1 to 1024 pixels", "--size", "64-32")
    wrong("--size: 8x2000, accepted are N, WIDTHxHEIGHT and LEAST-MOST, of 1 to 1024 pixels", "--size", "8x2000")
    wrong("--size: cifar10 has none to choose, --layout folder and packed have", "--size", "8")
    wrong("--classes: cifar100 has none to choose, --layout folder and packed have", "--classes", "8", "--layout", "cifar100")
    wrong("--train: 9, must be at least one for each of 10 classes", "--train", "9")
    wrong("--train: 0, accepted are whole numbers from 1 to 10000000", "--train", "0")
    wrong("--quality: 101, accepted are whole numbers from 1 to 100", "--quality", "101")
    local result = process.mptl { "data", "synthesize", dir }
    assert.equal(("mptl data: OUT: %s is there already\n"):format(dir), result.err)
    files.write(dir .. "/file", "")
    result = process.mptl { "data", "synthesize", dir .. "/file/set" }
    assert.equal(("mptl: cannot write %s/file/set.lock: Not a directory\n"):format(dir), result.err)
    assert.equal(1, result.status)
  end)
end)

describe("synthetic images", function()
  it("are those of the built-in set, one at a time", function()
    local planes = core.synthetic_planes { index = 3, classes = 7, side = 20, seed = 5, split = "test" }
    local image = core.dataset_synthetic({ count = 4, classes = 7, side = 20, seed = 5, split = "test" }):image(4)
    for _, i in ipairs { 1, 500, 1200 } do assert.equal(image:get(i), planes:byte(i)) end
    assert.equal(1200, #planes)
  end)

  it("as JPEG have the size that is asked for", function()
    assert.same({ 30, 11 }, { core.decoder():check(core.synthetic_jpeg { width = 30, height = 11 }) })
  end)

  it("refuse wrong arguments", function()
    assert.has_error(function() core.synthetic_planes { side = 1025 } end, "side: 1025, accepted are 1 to 1024")
    assert.has_error(function() core.synthetic_planes { classes = 1 } end, "classes: 1, accepted are 2 to 100")
    assert.has_error(function() core.synthetic_planes { index = -1 } end, "index: -1, must not be negative")
    assert.has_error(function() core.synthetic_jpeg { height = 0 } end, "height: 0, accepted are 1 to 1024")
    assert.has_error(function() core.synthetic_jpeg { colour = 0 } end,
      "unknown option colour, accepted are: index classes width height quality seed split")
  end)
end)
