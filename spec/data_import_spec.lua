local core = require "mptl.core"
local files = require "data_files"
local lfs = require "lfs"
local process = require "support.process"
local origin = require "mptl.dataset.origin"

local red, blue = files.jpeg({ 200, 30, 30 }, 8, 6), files.jpeg({ 20, 20, 220 }, 5, 9)

describe("mptl data import", function()
  local dir, out

  before_each(function()
    dir = files.directory()
    out = dir .. "/set.mptl"
  end)
  after_each(function() files.remove(dir) end)

  -- Writes images of these paths, red and blue in turn.
  local function images(...)
    for i, path in ipairs { ... } do files.write(dir .. "/" .. path, i % 2 == 1 and red or blue) end
  end

  local function import(...)
    return process.mptl { "data", "import", ... }
  end

  local function fails(status, message, ...)
    local result = import(...)
    assert.same({ "", (message:gsub("DIR", dir)), status }, { result.out, result.err, result.status })
    assert.is_nil(lfs.attributes(out .. ".tmp"))
  end

  local function tar(name, options, what)
    local command = ("tar -C %s %s -cf %s/%s %s"):format(dir, options, dir, name, what)
    assert(os.execute(command))
    return dir .. "/" .. name
  end

  -- "CLASS/FILE" of all images of a split, then the classes; nil when there is no such split.
  local function listed(split)
    local set = core.images_packed { path = out, split = split }
    local names, classes = {}, {}
    for i = 1, set:count() do names[i] = ("%d %s"):format(set:label(i), set:name(i)) end
    for i = 1, set:classes() do classes[i] = set:class_name(i - 1) end
    return names, classes
  end

  it("packs training and test set of a folder, in the folder's order", function()
    images("in/train/b/2.jpg", "in/train/b/10.JPEG", "in/train/a/x.jpg", "in/val/b/y.jpg")
    files.write(dir .. "/in/readme.txt", "not an image")
    files.write(dir .. "/in/train/b/._2.jpg", "neither is this")
    local result = import(dir .. "/in", out)
    assert.same({ "", 0 }, { result.err, result.status })
    assert.matches("^wrote .*/set%.mptl: 3 training and 1 test images of 2 classes, %d+%.%d MB, in %d+%.%d s\n"
      .. "skipped, as their names begin with a dot: 1, the first of them .*/in/train/b/%._2%.jpg\n"
      .. "skipped, as their names do not end in .jpg or .jpeg: 1\n$", result.out)
    local folder, packed = core.images_folder { path = dir .. "/in" }, core.images_packed { path = out }
    assert.same({ "a", "b" }, { packed:class_name(0), packed:class_name(1) })
    for i = 1, 3 do
      assert.same({ folder:name(i), folder:label(i), folder:read(i) }, { packed:name(i), packed:label(i), packed:read(i) })
    end
    assert.same({ "1 b/y.jpg" }, (listed "test"))
    assert.is_nil(lfs.attributes(out .. ".tmp"))
  end)

  it("reads CLASS/FILE as training images", function()
    images("in/flowers/rose/1.jpg", "in/flowers/aster/1.jpg")
    assert.equal(0, import(dir .. "/in", out).status)
    assert.same({ { "0 aster/1.jpg", "1 rose/1.jpg" }, { "aster", "rose" } }, { listed "train" })
    assert.has_error(function() core.images_packed { path = out, split = "test" } end, out .. ": no test images in it")
  end)

  local programs = { tar = "tar", ["tar.gz"] = "gzip", ["tar.bz2"] = "bzip2", ["tar.xz"] = "xz", ["tar.zst"] = "zstd" }
  for ending, program in pairs(programs) do
    it("reads " .. ending, function()
      if not os.execute("command -v " .. program .. " > /dev/null") then pending(program .. " is not installed") end
      images("train/a/1.jpg", "train/é/2.jpg", "test/a/3.jpg")
      local result = import(tar("set." .. ending, "--auto-compress --format=" .. (ending == "tar" and "pax" or "gnu"),
        "./train ./test"), out)
      assert.same({ "", 0 }, { result.err, result.status })
      assert.same({ { "0 a/1.jpg", "1 é/2.jpg" }, { "a", "é" } }, { listed "train" })
      assert.same({ "0 a/3.jpg" }, (listed "test"))
      assert.equal(red, core.images_packed { path = out, split = "train" }:read(1))
    end)
  end

  it("reads a tar that holds a tar for each class, and for the test set a flat tar with a file of labels", function()
    images("n02/n02_1.JPEG", "n01/n01_7.JPEG", "n01/n01_8.JPEG", "val_00000002.JPEG", "val_00000001.JPEG")
    for _, class in ipairs { "n01", "n02" } do tar(class .. ".tar", "-C " .. class, ".") end
    local train, val = tar("train.tar", "", "n01.tar n02.tar"), tar("val.tar", "", "val_00000002.JPEG val_00000001.JPEG")
    files.write(dir .. "/labels.csv", "ImageId,PredictionString\nval_00000001,n02 1 2 3 4\nval_00000002.JPEG n01\n")
    local result = import(train, out, "--test", val, "--test-labels", dir .. "/labels.csv")
    assert.same({ "", 0 }, { result.err, result.status })
    assert.same({ "0 n01/n01_7.JPEG", "0 n01/n01_8.JPEG", "1 n02/n02_1.JPEG" }, (listed "train"))
    assert.same({ "0 n01/val_00000002.JPEG", "1 n02/val_00000001.JPEG" }, (listed "test"))
    files.write(dir .. "/labels.csv", "val_00000001 n02\n")
    fails(1, "mptl: val_00000002.JPEG: the file of labels does not name it; --on-bad-image skip leaves such images out\n",
      train, out, "--test", val, "--test-labels", dir .. "/labels.csv", "--force")
  end)

  it("leaves out names that begin with a dot, in folders and archives, and says so", function()
    images("in/train/cat/1.jpg", "in/train/cat/.1.jpg", "in/train/.cache/2.jpg", "in/train/.cache/3.jpg",
      "in/.trash/train/x/4.jpg", "in/val/cat/5.jpg", "one/6.jpg")
    tar("in/.hidden.tar", "-C one", ".")
    local zip = dir .. "/set.zip"
    local zipped = os.execute(("cd %s/in && zip -qr %s . 2> ../zip.err"):format(dir, zip))
    for _, from in ipairs { dir .. "/in", tar("set.tar", "-C in", "."), zipped and zip or nil } do
      local result = import(from, out, "--force")
      assert.same({ "", 0 }, { result.err, result.status })
      assert.same({ { "0 cat/1.jpg" }, { "cat" } }, { listed "train" })
      assert.same({ "0 cat/5.jpg" }, (listed "test"))
      assert.matches("\nskipped, as their names begin with a dot: 4, the first of them ", result.out)
      assert.is_nil(result.out:find("not those of JPEG", 1, true))
    end
  end)

  it("stops at an image that cannot be decoded, naming it, and writes nothing", function()
    images("in/a/1.jpg", "in/a/2.jpg")
    files.write(dir .. "/in/a/3.jpg", red:sub(1, -4))
    fails(1, "mptl: a/3.jpg: a truncated JPEG image (Premature end of JPEG file); --on-bad-image skip leaves such images out\n",
      dir .. "/in", out)
    assert.is_nil(lfs.attributes(out))
  end)

  it("leaves such images out when asked to, and names each", function()
    images("in/a/1.jpg", "in/b/2.jpg")
    files.write(dir .. "/in/a/0.jpg", "GIF87a")
    files.write(dir .. "/in/b/9.jpg", "")
    lfs.link("/dev/null", dir .. "/in/b/device.jpg", true)
    images("in/none.jpg")
    local result = import(dir .. "/in", out, "--on-bad-image", "skip")
    assert.equal(0, result.status)
    local lines = {}
    for line in result.err:gmatch "[^\n]+" do lines[#lines + 1] = line end
    table.sort(lines)
    assert.same({
      "mptl data import: left out a/0.jpg: not a JPEG image but a GIF image",
      "mptl data import: left out b/9.jpg: not a JPEG image but empty",
      "mptl data import: left out b/device.jpg: a link or device",
      "mptl data import: left out none.jpg: no class: it is not in a folder",
    }, lines)
    assert.matches("\n4 images were left out\n", result.out)
    assert.same({ "0 a/1.jpg", "1 b/2.jpg" }, (listed "train"))
  end)

  it("refuses paths in archives that lead outside", function()
    images("a/1.jpg")
    local path = tar("odd.tar", "--transform s,a/1,../../1,", "a/1.jpg")
    fails(1, "mptl: ../../1.jpg: its path leads out of the source; --on-bad-image skip leaves such images out\n", path, out)
    images("in/a/1\n2.jpg")
    fails(1, "mptl: a/1?2.jpg: its path has control characters; --on-bad-image skip leaves such images out\n", dir .. "/in", out)
  end)

  it("refuses a test set that does not fit the training set", function()
    images("in/train/a/1.jpg", "in/test/b/1.jpg")
    fails(1, "mptl: DIR/set.mptl: the test set's b/1.jpg is of a class that the training set has not\n", dir .. "/in", out)
    images("mixed/a/1.jpg", "mixed/train/a/1.jpg")
    fails(1, "mptl: train/a/1.jpg: is in train/, test/ or val/, other images are not\n", dir .. "/mixed", out)
    images("twice/x/a/1.jpg", "twice/y/a/1.jpg")
    fails(1, "mptl: DIR/set.mptl: two images of the training set are named a/1.jpg\n", dir .. "/twice", out)
    lfs.mkdir(dir .. "/empty")
    fails(1, "mptl: DIR/set.mptl: no training images were added, at least one is needed\n", dir .. "/empty", out)
  end)

  it("names a wrong argument, and what is accepted", function()
    images("in/a/1.jpg")
    local from = dir .. "/in"
    fails(2, "mptl data: --on-bad-image: ignore, accepted are stop, skip\n", from, out, "--on-bad-image", "ignore")
    fails(2, "mptl data: DIR/nothing: No such file or directory\n", dir .. "/nothing", out)
    fails(2, "mptl data: --test-labels DIR/x: goes with --test SOURCE\n", from, out, "--test-labels", dir .. "/x")
    fails(2, "mptl data: --test-labels DIR/x: No such file or directory\n", from, out, "--test", from, "--test-labels",
      dir .. "/x")
    fails(2, "mptl data: OUT: DIR is a directory, must be a file to write\n", from, dir)
    fails(2, "mptl data: missing argument 'out'\n", from)
    fails(1, "mptl: cannot write DIR/none/set.mptl.tmp: No such file or directory\n", from, dir .. "/none/set.mptl")
    fails(1, "mptl: DIR/in/a/1.jpg: Unrecognized archive format\n", dir .. "/in/a/1.jpg", out)
    files.write(out, "old")
    fails(2, "mptl data: OUT: DIR/set.mptl is there already; --force replaces it\n", from, out)
    assert.equal("old", files.read(out))
    assert.equal(0, import(from, out, "--force").status)
    assert.same({ "0 a/1.jpg" }, (listed "train"))
  end)

  it("says where a truncated archive ends", function()
    images("train/a/1.jpg", "train/a/2.jpg")
    local path = tar("set.tar", "", "train")
    local bytes = files.read(path)
    files.write(path, bytes:sub(1, 1400))
    fails(1, "mptl: DIR/set.tar: Truncated tar archive\n", path, out)
  end)

  -- Runs the command in another Lua process; the signal comes when the first images are decoded.
  local function with_signal(signal)
    images("in/a/1.jpg")
    local script = process.file("import.lua", ([[
      local core = require "mptl.core"
      local survey = core.survey_bytes
      function core.survey_bytes(...)
        io.popen("kill -%s $PPID"):close()
        return survey(...)
      end
      os.exit(require "mptl.cli".main { "data", "import", %q, %q })
    ]]):format(signal, dir .. "/in", out))
    local _, how, code = os.execute(("exec %s %s 2> %s/err"):format(os.getenv "MPTL_LUA", script, dir))
    return how, code, files.read(dir .. "/err")
  end

  it("that is killed leaves no file of that name, and works the next time", function()
    assert.same({ "signal", 9, "" }, { with_signal "KILL" })
    assert.is_nil(lfs.attributes(out))
    assert.is_not_nil(lfs.attributes(out .. ".tmp"))
    assert.equal(0, import(dir .. "/in", out).status)
    assert.is_nil(lfs.attributes(out .. ".tmp"))
  end)

  it("that is interrupted says so", function()
    assert.same({ "exit", 130, "mptl data import: interrupted, nothing was written\n" }, { with_signal "INT" })
    assert.is_nil(lfs.attributes(out))
    assert.is_nil(lfs.attributes(out .. ".tmp"))
  end)

  it("reports a full disk", function()
    for i = 1, 200 do files.write(("%s/in/a/%d.jpg"):format(dir, i), red) end
    local command = ("ulimit -f 16; exec '%s' data import %s/in %s 2> %s/err"):format(os.getenv "MPTL_BIN", dir, out, dir)
    assert.is_nil((os.execute(command)))
    assert.equal(("mptl: cannot write %s.tmp: File too large\n"):format(out), files.read(dir .. "/err"))
    assert.is_nil(lfs.attributes(out))
    assert.is_nil(lfs.attributes(out .. ".tmp"))
  end)
end)

describe("the class and split of an image", function()
  local function place(path, options)
    return { origin.place(path, options or {}) }
  end

  it("come from its path", function()
    assert.same({ "train", "train", "1.jpg" }, place "train/train/1.jpg")
    assert.same({ "test", "train", "1.jpg" }, place "val/train/1.jpg")
    assert.same({ nil, "train", "1.jpg" }, place "./train/1.jpg")
    assert.same({ "test", "cat", "images/1.jpg" }, place "/data/tiny//validation/cat/images/1.jpg")
    assert.same({ nil, nil, nil, "no class: it is not in a folder" }, place "1.jpg")
  end)

  it("are what the options say", function()
    assert.same({ "test", "cat", "1.jpg" }, place("train/cat/1.jpg", { split = "test" }))
    assert.same({ "test", "cat", "1.jpg" }, place("x/1.jpg", { split = "test", labels = { ["1"] = "cat" } }))
  end)
end)
