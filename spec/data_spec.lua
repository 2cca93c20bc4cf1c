local core = require "mptl.core"
local data = require "mptl.data"
local files = require "data_files"
local flat, write = files.flat, files.write

describe("data sets", function()
  local dir

  before_each(function() dir = files.directory() end)
  after_each(function() files.remove(dir) end)

  local function cifar(options)
    options.path = options.path or dir
    return core.dataset_cifar(options)
  end

  describe("CIFAR-10", function()
    it("is read from files in the directory itself, planes in order", function()
      local pattern = files.entry({ 3 }, function(c, y, x) return c * 64 + y + (x == 5 and 1 or 0) end)
      write(dir .. "/data_batch_1.bin", pattern, flat(9, 7))
      local ds = cifar{}
      assert.equal(2, ds:count())
      assert.equal(10, ds:classes())
      assert.equal("train", ds:split())
      assert.same({ 3, 32, 32 }, ds:shape())
      assert.same({ 3, 9 }, { ds:label(1), ds:label(2) })
      local image = ds:image(1)
      assert.same({ 3, 32, 32 }, image:size())
      assert.equal(0, image:get(1))
      assert.equal(1, image:get(6)) -- red, first row, sixth column
      assert.equal(64 + 2, image:get(1024 + 2 * 32 + 1)) -- green, third row
      assert.equal(128 + 31 + 1, image:get(2048 + 31 * 32 + 6)) -- blue, last row
      assert.equal("dataset(train, 2 images, 10 classes)", tostring(ds))
    end)

    it("is found in cifar-10-batches-bin, train and test", function()
      write(dir .. "/cifar-10-batches-bin/data_batch_1.bin", flat(1, 0))
      write(dir .. "/cifar-10-batches-bin/test_batch.bin", flat(2, 0), flat(3, 0))
      assert.equal(1, cifar{}:count())
      assert.equal(2, cifar{ split = "test" }:count())
      assert.equal(dir .. "/cifar-10-batches-bin", core.dataset_find{ path = dir })
      assert.equal(dir .. "/cifar-10-batches-bin", core.dataset_find{ path = dir .. "/cifar-10-batches-bin" })
    end)

    it("reads the files in the order of their numbers", function()
      for i = 1, 11 do write(dir .. "/data_batch_" .. i .. ".bin", flat(i % 10, i)) end
      write(dir .. "/data_batch_12.txt", "not one of them")
      local ds = cifar{}
      assert.equal(11, ds:count())
      for i = 1, 11 do assert.equal(i, ds:image(i):get(1)) end
    end)

    it("accepts train.bin and test.bin, and prefers the published names", function()
      write(dir .. "/train.bin", flat(1, 0), flat(1, 0))
      write(dir .. "/test.bin", flat(1, 0))
      assert.equal(2, cifar{}:count())
      assert.equal(1, cifar{ split = "test" }:count())
      write(dir .. "/data_batch_1.bin", flat(1, 0))
      assert.equal(1, cifar{}:count())
    end)

    it("keeps the first images up to the limit, across files", function()
      write(dir .. "/data_batch_1.bin", flat(0, 10), flat(1, 11))
      write(dir .. "/data_batch_2.bin", flat(2, 12), flat(3, 13))
      local ds = cifar{ limit = 3 }
      assert.equal(3, ds:count())
      assert.same({ 0, 1, 2 }, { ds:label(1), ds:label(2), ds:label(3) })
      assert.equal(4, cifar{ limit = 100 }:count())
    end)

    it("may have more records than are read at once", function()
      local records = {}
      for i = 0, 599 do records[i + 1] = flat(i % 10, i % 251) end
      write(dir .. "/data_batch_1.bin", table.concat(records))
      local ds = cifar{}
      assert.equal(600, ds:count())
      for _, i in ipairs{ 256, 257, 512, 513, 600 } do
        assert.same({ (i - 1) % 10, (i - 1) % 251 }, { ds:label(i), ds:image(i):get(3072) })
      end
    end)
  end)

  describe("CIFAR-100", function()
    it("uses the fine label", function()
      write(dir .. "/cifar-100-binary/train.bin", string.char(19, 99), ("\1"):rep(3072))
      local ds = cifar{ classes = 100 }
      assert.equal(100, ds:classes())
      assert.equal(99, ds:label(1))
      assert.equal(1, ds:image(1):get(1))
    end)
  end)

  describe("errors", function()
    local function message(options)
      local ok, err = pcall(cifar, options)
      assert.is_false(ok)
      return err
    end

    it("say what was looked for when nothing was found", function()
      assert.equal(dir .. ": no CIFAR-10 test set: looked for test_batch.bin and test.bin in " .. dir .. " and " .. dir
        .. "/cifar-10-batches-bin (the binary version of CIFAR-10 is at https://www.cs.toronto.edu/~kriz/cifar.html)",
        message{ split = "test" })
      assert.matches("^/nowhere: no CIFAR%-100 training set", message{ path = "/nowhere", classes = 100 })
      assert.is_nil(core.dataset_find{ path = "/nowhere" })
    end)

    it("name a truncated file, its size and the record's", function()
      write(dir .. "/data_batch_1.bin", flat(0, 0))
      write(dir .. "/data_batch_2.bin", flat(0, 0):sub(1, -2))
      local want = dir .. "/data_batch_2.bin: 3072 bytes, not a whole number of CIFAR-10 records of 3073 bytes: "
        .. "truncated, or another format"
      assert.equal(want, message{})
      assert.equal(want, message{ limit = 1 })
    end)

    it("name what a set lacks, unless a part of it was asked for", function()
      for _, i in ipairs{ 1, 2, 4, 5 } do write(dir .. "/data_batch_" .. i .. ".bin", flat(i, 0), flat(i, 1)) end
      local want = dir .. ": the training set is not whole: data_batch_3.bin is missing; "
        .. "a limit of up to 8 images takes a part of it"
      assert.equal(want, message{})
      assert.equal(want, message{ limit = 9 })
      assert.equal(8, cifar{ limit = 8 }:count())
      assert.equal(8, cifar{ part = true }:count())
      write(dir .. "/data_batch_3.bin", "")
      assert.equal((want:gsub("missing", "empty")), message{})
      write(dir .. "/data_batch_3.bin", flat(3, 0))
      assert.equal(9, cifar{}:count())
      os.remove(dir .. "/data_batch_1.bin")
      assert.matches("data_batch_1.bin is missing", message{})
    end)

    it("name what a published set lacks, even if the rest looks complete", function()
      write(dir .. "/batches.meta.txt", "airplane\nautomobile\n")
      for i = 1, 4 do write(dir .. "/data_batch_" .. i .. ".bin", flat(i, 0)) end
      assert.matches("the training set is not whole: data_batch_5.bin is missing;", message{})
      write(dir .. "/data_batch_5.bin", flat(5, 0))
      assert.matches("the training set is not whole: 5 images of CIFAR%-10's 50000; a limit of up to 5 images", message{})
      write(dir .. "/test_batch.bin", flat(5, 0):rep(9999))
      assert.matches("the test set is not whole: 9999 images of CIFAR%-10's 10000; ", message{ split = "test" })
      write(dir .. "/test_batch.bin", flat(5, 0):rep(10000))
      assert.equal(10000, cifar{ split = "test" }:count())
      write(dir .. "/hundred/fine_label_names.txt", "apple\r\n")
      write(dir .. "/hundred/train.bin", string.char(1, 1), ("\0"):rep(3072))
      assert.matches("1 images of CIFAR%-100's 50000", message{ path = dir .. "/hundred", classes = 100 })
    end)

    it("name the record whose label is out of range", function()
      write(dir .. "/data_batch_1.bin", flat(0, 0), flat(10, 0), flat(0, 0))
      assert.equal(dir .. "/data_batch_1.bin: record 2 has label 10, accepted are 0 to 9", message{})
      assert.equal(1, cifar{ limit = 1 }:count())
      write(dir .. "/train.bin", string.char(20, 100), ("\0"):rep(3072))
      assert.equal(dir .. "/train.bin: record 1 has label 100, accepted are 0 to 99", message{ classes = 100 })
    end)

    it("name an empty set, a directory instead of a file, a file instead of a directory", function()
      write(dir .. "/data_batch_1.bin", "")
      assert.equal(dir .. "/data_batch_1.bin: the training set is empty, at least one record is needed", message{})
      write(dir .. "/test_batch.bin/x", "")
      assert.equal(dir .. "/test_batch.bin: not a regular file", message{ split = "test" })
      assert.matches("data_batch_1.bin: no CIFAR%-10 training set", message{ path = dir .. "/data_batch_1.bin" })
    end)

    it("name options out of range", function()
      write(dir .. "/data_batch_1.bin", flat(0, 0))
      assert.equal("limit: 0 images, must be positive", message{ limit = 0 })
      assert.equal("limit: -3 images, must be positive", message{ limit = -3 })
      assert.equal("classes: 11, accepted are 10 (CIFAR-10) and 100 (CIFAR-100)", message{ classes = 11 })
      assert.matches("split: both, accepted are train and test", message{ split = "both" })
      assert.matches("^data directory: an empty path", message{ path = "" })
      assert.matches("^data directory: a path of 5000 characters", message{ path = ("x"):rep(5000) })
      assert.matches("unknown option limits, accepted are: path classes split limit", message{ limits = 1 })
      assert.has_error(function() core.dataset_cifar{} end, "path: missing, must name a directory")
      assert.has_error(function() cifar{}:label(2) end, "data set: image 2, accepted are 1 to 1")
      assert.has_error(function() cifar{}:image(0) end, "data set: image 0, accepted are 1 to 1")
    end)
  end)

  describe("synthetic", function()
    it("is the same for the same seed, and different for another seed or split", function()
      local function bytes(options)
        options.count = 3
        return core.dataset_synthetic(options):image(2):tostring()
      end
      local first = bytes{ seed = 1 }
      assert.equal(first, bytes{ seed = 1 })
      assert.not_equal(first, bytes{ seed = 2 })
      assert.not_equal(first, bytes{ seed = 1, split = "test" })
    end)

    it("does not depend on the machine", function()
      local image = core.dataset_synthetic{ count = 8, seed = 42 }:image(8):totable()
      local sum = 0
      for i, value in ipairs(image) do sum = (sum * 31 + value * i) % 1000000007 end
      assert.equal(902437228, sum)
    end)

    it("has equally many images of each class under any limit", function()
      local ds = core.dataset_synthetic{ count = 100, classes = 4, limit = 12 }
      assert.equal(12, ds:count())
      local counts = {}
      for i = 1, 12 do counts[ds:label(i)] = (counts[ds:label(i)] or 0) + 1 end
      assert.same({ [0] = 3, 3, 3, 3 }, counts)
    end)

    it("has the mean and deviation that data.open gives", function()
      local opened = data.open{ dataset = "synthetic", limit_train = 400, limit_test = 1 }
      for c = 1, 3 do
        local sum, squares = 0, 0
        for i = 1, 400 do
          local image = opened.train:image(i):totable()
          for p = (c - 1) * 1024 + 1, c * 1024 do
            local x = (image[p] / 255 - opened.mean[c]) / opened.std[c]
            sum, squares = sum + x, squares + x * x
          end
        end
        local mean = sum / 400 / 1024
        assert.is_true(math.abs(mean) < 0.1)
        assert.is_true(math.abs(math.sqrt(squares / 400 / 1024 - mean * mean) - 1) < 0.1)
      end
    end)

    it("names options out of range", function()
      assert.has_error(function() core.dataset_synthetic{ count = 0 } end, "count: 0 images, must be positive")
      assert.has_error(function() core.dataset_synthetic{ classes = 1 } end, "classes: 1, accepted are 2 to 100")
      assert.has_error(function() core.dataset_synthetic{ classes = 101 } end, "classes: 101, accepted are 2 to 100")
      assert.has_error(function() core.dataset_synthetic{ limit = 0 } end, "limit: 0 images, must be positive")
    end)
  end)

  describe("data.open", function()
    it("gives both splits, means and deviations", function()
      write(dir .. "/cifar-10-batches-bin/data_batch_1.bin", flat(1, 0), flat(2, 0))
      write(dir .. "/cifar-10-batches-bin/test_batch.bin", flat(3, 0), flat(4, 0))
      local opened = data.open{ dataset = "cifar10", dir = dir, limit_test = 1 }
      assert.same({ 2, 1 }, { opened.train:count(), opened.test:count() })
      assert.same({ "train", "test" }, { opened.train:split(), opened.test:split() })
      assert.same({ 0.4914, 0.4822, 0.4465 }, opened.mean)
      assert.same({ 0.2023, 0.1994, 0.2010 }, opened.std)
      assert.same({ 10, "cifar10", dir .. "/cifar-10-batches-bin" }, { opened.classes, opened.name, opened.dir })
    end)

    it("opens CIFAR-100", function()
      write(dir .. "/train.bin", string.char(0, 42), ("\0"):rep(3072))
      write(dir .. "/test.bin", string.char(0, 43), ("\0"):rep(3072))
      local opened = data.open{ dataset = "cifar100", dir = dir }
      assert.same({ 100, 42, 43 }, { opened.classes, opened.train:label(1), opened.test:label(1) })
      assert.same({ 0.5074, 0.4867, 0.4411 }, opened.mean)
      assert.same({ 0.2011, 0.1987, 0.2025 }, opened.std)
    end)

    it("opens the synthetic set without files", function()
      local opened = data.open{ dataset = "synthetic", limit_train = 20, limit_test = 10, seed = 3 }
      assert.same({ 20, 10, 10 }, { opened.train:count(), opened.test:count(), opened.classes })
      assert.is_nil(opened.dir)
    end)

    it("says where it looked, how to download the data and how to work without", function()
      assert.has_error(function() data.open{ dataset = "cifar10", dir = dir } end,
        "dataset cifar10: not found: looked in " .. dir .. " for *.bin or cifar-10-batches-bin/*.bin; "
        .. "mptl data fetch cifar10 --data " .. dir .. " downloads it; or get the binary version of CIFAR-10 at "
        .. "https://www.cs.toronto.edu/~kriz/cifar.html, unpack it into DIR and give --data DIR, "
        .. "or train without data: --dataset synthetic")
    end)

    it("names what is wrong", function()
      assert.has_error(function() data.open{ dataset = "mnist" } end,
        "dataset: mnist, accepted are cifar10, cifar100, imagenet, synthetic")
      assert.has_error(function() data.open{} end, "dataset: nil, accepted are cifar10, cifar100, imagenet, synthetic")
      assert.has_error(function() data.open{ dataset = "synthetic", limit_train = 0 } end,
        "limit_train: 0, must be a positive integer")
      assert.has_error(function() data.open{ dataset = "synthetic", limit_test = 1.5 } end,
        "limit_test: 1.5, must be a positive integer")
      assert.has_error(function() data.open{ dataset = "synthetic", directory = "x" } end,
        "data.open: unknown option directory, accepted are dataset, dir, image_size, limit_test, limit_train, on_bad_image, "
        .. "seed")
    end)

    describe("looks", function()
      local getenv, environment = os.getenv, {}
      before_each(function()
        os.getenv = function(name) return environment[name] end -- luacheck: ignore 122
      end)
      after_each(function() os.getenv = getenv end) -- luacheck: ignore 122

      it("in $MPTL_DATA, then in $XDG_DATA_HOME/mptl or the home directory's", function()
        environment = { MPTL_DATA = "/a", XDG_DATA_HOME = "/b", HOME = "/c" }
        assert.same({ "/a", "/b/mptl" }, data.places())
        environment = { MPTL_DATA = "", HOME = "/c" }
        assert.same({ "/c/.local/share/mptl" }, data.places())
        environment = { XDG_DATA_HOME = dir, MPTL_DATA = "/nowhere" }
        write(dir .. "/mptl/data_batch_1.bin", flat(0, 0))
        assert.equal(dir .. "/mptl", data.find("cifar10"))
        assert.is_nil(data.find("cifar100"))
      end)

      it("and ignores files of the other data set that have the same names", function()
        environment = { MPTL_DATA = dir .. "/100", XDG_DATA_HOME = dir }
        write(dir .. "/100/train.bin", string.char(1, 1), ("\0"):rep(3072))
        write(dir .. "/mptl/train.bin", flat(0, 0))
        assert.equal(dir .. "/mptl", data.find("cifar10"))
        assert.equal(dir .. "/100", data.find("cifar100"))
      end)

      it("only in the directory that was asked for, if one was", function()
        write(dir .. "/data_batch_1.bin", flat(0, 0))
        environment = { MPTL_DATA = dir }
        assert.equal(dir, data.find("cifar10"))
        assert.same({ "/nowhere" }, data.places("/nowhere"))
        assert.is_nil(data.find("cifar10", "/nowhere"))
      end)
    end)
  end)

  it("reads the real CIFAR-10 if it exists here", function()
    if not data.find("cifar10") then
      return pending("no CIFAR-10 in " .. table.concat(data.places(), " or ") .. ": set MPTL_DATA to try it")
    end
    local opened = data.open{ dataset = "cifar10" }
    assert.is_true(opened.train:count() >= 5000)
    assert.is_true(opened.test:count() >= 1000)
    local seen = {}
    for i = 1, 1000 do seen[opened.test:label(i)] = true end
    for class = 0, 9 do assert.is_true(seen[class]) end
  end)
end)
