local core = require "mptl.core"
local files = require "data_files"
local json = require "mptl.json"
local process = require "support.process"

describe("mptl data check", function()
  local dir
  local jpegs = {} -- by colour and size; encoding takes time

  before_each(function() dir = files.directory() end)
  after_each(function() files.remove(dir) end)

  local function jpeg(grey, width, height)
    local key = ("%d %d %d"):format(grey, width, height)
    jpegs[key] = jpegs[key] or files.jpeg({ grey, grey, grey }, width, height)
    return jpegs[key]
  end

  local function check(...)
    local result = process.mptl { "data", "check", ... }
    assert.equal("", result.err)
    return (result.out:gsub(dir, "DIR")), result.status
  end

  local function table_of(...)
    local out, status = check(..., "--json")
    return assert(json.decode(out)), status
  end

  -- A folder with two classes, whose images have means of 0.2 and 0.6.
  local function folder()
    files.write(dir .. "/train/cat/1.jpg", jpeg(51, 8, 8))
    files.write(dir .. "/train/dog/1.jpg", jpeg(153, 8, 8))
    files.write(dir .. "/train/dog/2.jpg", jpeg(102, 16, 4))
    files.write(dir .. "/val/dog/1.jpg", jpeg(52, 8, 10))
  end

  it("reports counts, sizes, mean and deviation of a folder of images", function()
    folder()
    local out, status = check(dir)
    assert.equal([[
DIR: folder of images, 2 classes
train 3 images, 8 x 4 to 16 x 8 pixels, 1 to 2 a class
test  1 images, 8 x 10 pixels, 0 to 1 a class
mean  0.4000 0.4000 0.4000 of the training set's red, green and blue, in units of the full range
std   0.1633 0.1633 0.1633
  cat        1        0
  dog        2        1
nothing is wrong
]], out)
    assert.equal(0, status)
  end)

  it("reports them for a packed file and for CIFAR's layout, and as JSON", function()
    folder()
    local packed = dir .. "/set.mptl"
    assert.equal(0, process.mptl({ "data", "import", dir, packed }).status)
    local a, b = table_of(dir), table_of(packed)
    assert.same({ "folder", "packed" }, { a.kind, b.kind })
    a.kind, a.path, b.kind, b.path = nil, nil, nil, nil
    assert.same(a, b)
    assert.same({ "cat", "dog" }, b.classes)
    assert.same({ images = 3, bad = 0, warned = 0, min = { 8, 4 }, max = { 16, 8 }, counts = { 1, 2 } }, b.train)
    assert.near(0.4, b.mean[1], 1e-12)
    assert.near(math.sqrt(0.08 / 3), b.std[3], 1e-12)

    local cifar = dir .. "/cifar"
    files.write(cifar .. "/data_batch_1.bin", files.flat(0, 0), files.flat(1, 255))
    files.write(cifar .. "/test_batch.bin", files.flat(9, 7))
    local c, status = table_of(cifar)
    assert.same({ images = 2, bad = 0, warned = 0, min = { 32, 32 }, max = { 32, 32 },
      counts = { 1, 1, 0, 0, 0, 0, 0, 0, 0, 0 } }, c.train)
    assert.same({ { 0.5, 0.5, 0.5 }, { 0.5, 0.5, 0.5 } }, { c.mean, c.std })
    assert.same({ 1, "class 2: no training images" }, { status, c.problems[1] })
  end)

  it("counts images with a decoder's warning, which are usable nevertheless", function()
    folder()
    files.write(dir .. "/train/dog/3.jpg", (jpeg(51, 8, 9):gsub("JFIF\0\1", "JFIF\0\2")))
    local out, status = check(dir)
    assert.matches("\ntrain 4 images, [^\n]*; 1 with harmless mistakes in their JPEG data\ntest ", out)
    assert.matches("nothing is wrong\n$", out)
    assert.same({ 1, 0, 0 }, { table_of(dir).train.warned, table_of(dir).test.warned, status })
    local packed = process.mptl { "data", "import", dir, dir .. "/set.mptl" }
    assert.same({ 0, "" }, { packed.status, packed.err })
    assert.matches("\ntaken in spite of harmless mistakes in their JPEG data: 1\n", packed.out)
  end)

  it("names images that cannot be read, and why", function()
    folder()
    files.write(dir .. "/train/cat/2.jpg", jpeg(51, 8, 8):sub(1, -4))
    files.write(dir .. "/val/dog/2.jpg", "")
    local out, status = check(dir)
    assert.matches("\ntrain 4 images, [^\n]*; 1 cannot be read\n", out)
    assert.matches("\nwrong: train cat/2.jpg: a truncated JPEG image %(.*%)\n", out)
    assert.matches("\nwrong: test dog/2.jpg: not a JPEG image but empty\n2 things are wrong\n$", out)
    assert.equal(1, status)
  end)

  it("names a missing file of CIFAR and checks the others; a training stops", function()
    for _, i in ipairs { 1, 2, 4 } do files.write(dir .. "/data_batch_" .. i .. ".bin", files.flat(i, i):rep(4)) end
    files.write(dir .. "/test_batch.bin", files.flat(9, 7))
    local problem = ": the training set is not whole: data_batch_3.bin is missing; a limit of up to 12 images takes a part of it"
    local out, status = check(dir)
    assert.equal(1, status)
    assert.matches("\ntrain 12 images, ", out)
    assert.is_truthy(out:find("\nwrong: DIR" .. problem .. "\n", 1, true))
    local train = { "train", os.getenv "MPTL_ROOT" .. "/models/resnet18_cifar.lua", "--dataset", "cifar10", "--data", dir,
      "--batch", "4", "--epochs", "1", "--out", dir .. "/run" }
    local result = process.mptl(train)
    assert.same({ "mptl: " .. dir .. problem .. "\n", 1 }, { result.err, result.status })
  end)

  it("finds damage in a packed file, in an image and elsewhere", function()
    folder()
    local packed = dir .. "/set.mptl"
    process.mptl { "data", "import", dir, packed }
    local bytes = files.read(packed)
    local at = assert(bytes:find(jpeg(102, 16, 4), 1, true)) + 30
    files.write(packed, bytes:sub(1, at - 1), string.char(bytes:byte(at) ~ 1), bytes:sub(at + 1))
    local out, status = check(packed)
    assert.matches("\nwrong: train dog/2.jpg: damaged: its checksum is %x+, that of its bytes %x+\n1 thing is wrong\n$", out)
    assert.equal(1, status)
    files.write(packed, bytes:sub(1, -2))
    assert.same({ ("DIR/set.mptl: packed data set\nwrong: DIR/set.mptl: truncated: %d bytes of %d\n1 thing is wrong\n")
      :format(#bytes - 1, #bytes), 1 }, { check(packed) })
  end)

  it("finds an image under two labels, and reports images that appear twice", function()
    folder()
    files.write(dir .. "/train/dog/9.jpg", jpeg(51, 8, 8))
    files.write(dir .. "/val/dog/9.jpg", jpeg(153, 8, 8))
    local out, status = check(dir)
    assert.matches("\n2 images are the same as earlier ones, 1 of the test set as ones of the training set\n"
      .. "wrong: train cat/1.jpg and train dog/9.jpg: the same image under two labels, cat and dog\n1 thing is wrong\n$", out)
    assert.equal(1, status)
    os.remove(dir .. "/train/dog/9.jpg")
    assert.same({ images = 1, across = 1, labels_differ = 0 }, table_of(dir).duplicates)
  end)

  it("reads CIFAR's names of classes, and finds wrong ones", function()
    local records = {}
    for label = 0, 9 do records[label + 1] = files.flat(label, label) end
    files.write(dir .. "/cifar-10-batches-bin/train.bin", table.concat(records))
    files.write(dir .. "/cifar-10-batches-bin/test.bin", files.flat(9, 99))
    local names = { "plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "lorry" }
    files.write(dir .. "/cifar-10-batches-bin/batches.meta.txt", table.concat(names, "\n"), "\n\n")
    local t, status = table_of(dir)
    assert.same({ "cifar10", names, 0 }, { t.kind, t.classes, status })
    names[3] = "car"
    files.write(dir .. "/cifar-10-batches-bin/batches.meta.txt", table.concat(names, "\n"))
    assert.same({ "batches.meta.txt: two classes are named car" }, table_of(dir).problems)
    files.write(dir .. "/cifar-10-batches-bin/batches.meta.txt", "one\n")
    assert.same({ "batches.meta.txt: 1 names, must be 10" }, table_of(dir).problems)
    files.write(dir .. "/cifar-10-batches-bin/train.bin", files.flat(10, 0))
    assert.matches("record 1 has label 10, accepted are 0 to 9$", table_of(dir).problems[1])
  end)

  it("says which part is missing", function()
    files.write(dir .. "/train/a/1.jpg", jpeg(51, 8, 8))
    local t, status = table_of(dir)
    assert.same({ { "DIR/val: No such file or directory" }, 1 }, { t.problems, status })
    assert.is_nil(t.test)
  end)

  it("gives the same for any number of threads", function()
    folder()
    assert.same(table_of(dir, "--threads", "1"), table_of(dir, "--threads", "4"))
  end)

  it("names a path that is not a data set", function()
    local function fails(message, ...)
      local result = process.mptl { "data", "check", ... }
      assert.same({ "", (message:gsub("DIR", dir)), 2 }, { result.out, result.err, result.status })
    end
    fails("mptl data: DIR/none: No such file or directory\n", dir .. "/none")
    fails("mptl data: DIR/50%: No such file or directory\n", dir .. "/50%")
    fails("mptl data: DIR: no data set, accepted are CIFAR's binary files, a folder with train/CLASS/*.jpg and val/, "
      .. "a packed file\n", dir)
    files.write(dir .. "/train/a/1.jpg", jpeg(51, 8, 8))
    files.write(dir .. "/cifar-10-batches-bin/train.bin", files.flat(0, 0))
    fails("mptl data: DIR: several data sets: DIR/cifar-10-batches-bin, DIR; name one of them\n", dir)
    fails("mptl data: --threads: 0, accepted are whole numbers from 1 to 1024\n", dir, "--threads", "0")
    fails("mptl data: missing argument 'path'\n")
  end)
end)

describe("a survey", function()
  it("refuses images that do not exist", function()
    local set = core.dataset_synthetic { count = 20 }
    assert.has_error(function() core.survey(set, 1, 21) end, "survey: images 1 to 21, there are 20")
    assert.has_error(function() core.survey(set, 0, 1) end, "survey: images 0 to 0, there are 20")
    assert.has_error(function() core.survey(set, 1, 0) end, "survey: 0 images, accepted are 1 to 65536")
    assert.has_error(function() core.survey_bytes { "x", 1 } end, "survey: image 2 is not a string")
    assert.same({ { 1, "not a JPEG image: begins with the byte 0x78, must begin with 0xff 0xd8" } },
      core.survey_bytes({ "x" }).bad)
  end)
end)
