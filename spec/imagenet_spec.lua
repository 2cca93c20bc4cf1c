-- Data sets of encoded images: batches of a loader, and training on a folder from the command line.
local core = require "mptl.core"
local data = require "mptl.data"
local files = require "data_files"
local fixtures = require "fixtures.images"
local json = require "mptl.json"
local lfs = require "lfs"
local pictures = require "support.pictures"
local runs = require "support.runs"

-- KILL=n in the environment interrupts the process after its n-th step.
local script = [[
local mptl = require "mptl"
local nn = mptl.nn
local steps = 0
return {
  model = function(cfg)
    return nn.Sequential {
      nn.Conv2d { cfg.input[1], 4, kernel = 4, stride = 4 }, nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(cfg.input[2] // 4),
      nn.Flatten(), nn.Linear { 4, cfg.classes },
    }
  end,
  dataset = "imagenet", batch = 8, epochs = 3,
  precision = mptl.precision.policy(function() end, {
    formats = "hfp8",
    after_step = function()
      steps = steps + 1
      if steps == tonumber(os.getenv "KILL") then io.popen("kill -INT $PPID"):close() end
    end,
  }),
}
]]

describe("encoded images", function()
  local dir

  before_each(function() dir = files.directory() end)
  after_each(function() files.remove(dir) end)

  local function dataset(options, split)
    options.split = split
    return core.dataset_encoded(core.images_folder { path = dir, split = split }, options)
  end

  local function write(path, bytes) files.write(dir .. "/" .. path, bytes) end

  it("are scaled and cropped for a test as torchvision does on Pillow's images", function()
    for i, case in ipairs(fixtures.jpegs) do write(("train/a/%d.jpg"):format(i), files.bytes(case.jpeg)) end
    local ds = dataset { side = 14, resize = 16 }
    local loader = core.loader(ds, { batch = #fixtures.jpegs, mean = { 0.485, 0.456, 0.406 }, std = { 0.229, 0.224, 0.225 } })
    loader:start(0)
    loader:next()
    local batch = loader:images()
    assert.same({ #fixtures.jpegs, 14, 14, 3 }, batch:size())
    for i, case in ipairs(fixtures.jpegs) do
      local image = ds:image(i)
      for p = 0, 14 * 14 - 1 do
        for c = 0, 2 do
          local want = case.pixels[3 * p + c + 1]
          assert.near(want, image:get(c * 196 + p + 1), 1) -- decoders may differ in the last bit
          local normalised = (want / 255 - ({ 0.485, 0.456, 0.406 })[c + 1]) / ({ 0.229, 0.224, 0.225 })[c + 1]
          assert.near(normalised, batch:get((i - 1) * 588 + 3 * p + c + 1), 0.02)
        end
      end
    end
  end)

  -- An image whose colours encode positions, and the crop of it in an image of 16 x 16: x, y, width, height, flipped or not.
  local function placed(x, y) return 2 * x, 2 * y, 128 end

  local function part(images, i)
    local function at(x, y, c) return images:get(((i * 16 + y) * 16 + x) * 3 + c + 1) * 255 / 2 end
    local across, down = (at(15, 8, 0) - at(0, 8, 0)) * 16 / 15, (at(8, 15, 1) - at(8, 0, 1)) * 16 / 15
    local flip = across < 0
    return at(flip and 15 or 0, 8, 0) - math.abs(across) / 32, at(8, 0, 1) - down / 32, math.abs(across), down, flip
  end

  it("are random crops, scaled and mirrored, for training", function()
    write("train/a/1.jpg", pictures.jpeg(120, 110, placed))
    for i = 2, 40 do write(("train/a/%d.jpg"):format(i), (core.images_folder { path = dir }):read(1)) end
    local loader = core.loader(dataset { side = 16 }, { batch = 40, augment = true })
    local flips, small, first = 0, 0, {}
    for epoch = 0, 3 do
      loader:start(epoch)
      loader:next()
      local images = loader:images()
      for i = 0, 39 do
        local x, y, width, height, flip = part(images, i)
        assert.is_true(x > -3 and y > -3 and x + width < 123 and y + height < 113)
        assert.is_true(width * height > 0.06 * 120 * 110)
        assert.is_true(width / height > 0.68 and width / height < 1.48)
        flips, small = flips + (flip and 1 or 0), small + (width * height < 0.3 * 120 * 110 and 1 or 0)
      end
      first[epoch] = images:get(1)
    end
    assert.is_true(flips > 55 and flips < 105) -- of 160: deviation 6
    assert.is_true(small > 20 and small < 75)
    assert.is_true(first[0] ~= first[1] and first[1] ~= first[2])
  end)

  it("are chosen evenly by a limit", function()
    pictures.folder(dir, { train = { a = 4, b = 4, c = 4 } })
    local ds = dataset { side = 8, limit = 6 }
    local labels = {}
    for i = 1, 6 do labels[i] = ds:label(i) end
    assert.same({ 0, 0, 1, 1, 2, 2 }, labels)
    assert.equal(12, dataset({ side = 8, limit = 100 }):count())
  end)

  it("that are bad are named, or left out without changing the others", function()
    pictures.folder(dir, { train = { a = 9 } })
    local function epoch(options)
      local loader = core.loader(dataset(options), { batch = 4, augment = true, shuffle = true, seed = 3, threads = 2 })
      loader:start(0)
      local by_index, bad, sizes = {}, 0, {}
      while true do
        local n, skipped = loader:next()
        bad = bad + skipped
        if not n then return by_index, bad, sizes, loader:skipped() end
        local bytes = loader:images():tostring()
        for i, index in ipairs(loader:indices()) do by_index[index] = bytes:sub((i - 1) * 768 + 1, i * 768) end
        sizes[#sizes + 1] = n
      end
    end
    local whole = epoch { side = 8 }
    local path = dir .. "/train/a/05.JPEG"
    write("train/a/05.JPEG", runs.slurp(path):sub(1, -100))
    assert.has_error(function() epoch { side = 8 } end, path .. ": a truncated JPEG image (Premature end of JPEG file)")
    local left, bad, sizes, last = epoch { side = 8, skip_bad = true }
    assert.same({ 1, path .. ": a truncated JPEG image (Premature end of JPEG file)" }, { bad, last })
    assert.equal(8, sizes[1] + sizes[2] + (sizes[3] or 0))
    whole[5] = nil
    assert.is_true(#whole[1] == 768)
    assert.same(whole, left)
    os.remove(path)
    files.write(path, files.bytes(fixtures.png))
    assert.has_error(function() dataset({ side = 8 }):image(5) end, path .. ": not a JPEG image but a PNG image")
  end)

  it("have limits, which errors name", function()
    pictures.folder(dir, { train = { a = 1 } })
    assert.has_error(function() dataset { side = 8, resize = 7 } end, "resize: 7, accepted are the images' side, 8, to 2048")
    assert.has_error(function() dataset { side = 1025 } end, "side of the images: 1025, accepted are 1 to 1024")
    assert.has_error(function() dataset { limit = 0 } end, "limit: 0 images, must be positive")
  end)

  it("are found in a folder or a packed file, by path or by name", function()
    pictures.folder(dir, { train = { a = 2, b = 2 }, val = { b = 1 } })
    assert.same({ dir, 2 }, { data.find("imagenet", dir) })
    local parent = files.directory()
    finally(function() files.remove(parent) end)
    os.rename(dir, parent .. "/imagenet")
    lfs.mkdir(dir)
    assert.same({ parent .. "/imagenet", 2 }, { data.find("imagenet", parent) })
    local packed = parent .. "/imagenet.mptl"
    local packer <close> = core.packer(packed)
    packer:add("train", "a", "1.jpg", files.bytes(fixtures.jpegs[1].jpeg))
    packer:add("test", "a", "2.jpg", files.bytes(fixtures.jpegs[1].jpeg))
    packer:finish()
    assert.same({ packed, 1 }, { data.find("imagenet", parent) })
    assert.same({ packed, 1 }, { data.find("imagenet", packed) })
    local opened = data.open { dataset = "imagenet", dir = packed, image_size = 20 }
    assert.same({ 1, 1, 1, true }, { opened.classes, opened.train:count(), opened.test:count(), opened.encoded })
    assert.same({ 3, 20, 20 }, opened.test:shape())
  end)
end)

describe("training on a folder of images", function()
  local dir
  local options = "--data images --image-size 24 "

  setup(function()
    dir = runs.directory()
    runs.spill(dir .. "/small.lua", script)
    pictures.folder(dir .. "/images", { train = { a = 7, b = 6, c = 8 }, val = { a = 4, c = 5 } })
    assert.equal(0, (runs.mptl(dir, "train small.lua --quiet --out whole " .. options)))
  end)
  teardown(function() runs.remove(dir) end)

  -- Whether a percentage is a whole number of n images.
  local function is_share(percent, n)
    local images = percent * n / 100
    return math.abs(images - math.floor(images + 0.5)) < 1e-9
  end

  local function train(arguments, before) return runs.mptl(dir, "train small.lua --quiet " .. options .. arguments, before) end

  it("takes the number of classes from it", function()
    local config = json.decode(runs.slurp(dir .. "/whole/config.json"))
    assert.same({ 3, { 3, 24, 24 } }, { config.classes, config.input })
    local plan = json.decode((select(2, runs.mptl(dir, "plan small.lua --json " .. options))))
    assert.equal(4 * 3 + 3, plan.tensors[6].theta.numel)
    assert.is_true(is_share(runs.metrics(dir .. "/whole")[3].test_acc, 9))
  end)

  it("resumes bit for bit", function() -- 3 steps an epoch, the last of 5 images
    assert.equal(130, (train("--out cut", "KILL=5")))
    assert.equal(0, (train "--out cut --resume"))
    assert.same(runs.reproducible(dir .. "/whole"), runs.reproducible(dir .. "/cut"))
    assert.is_true(runs.same_files(dir .. "/whole/last.safetensors", dir .. "/cut/last.safetensors"))
  end)

  it("can be evaluated without repeating the options", function()
    local code, out = runs.mptl(dir, "eval small.lua whole/last.safetensors --json --data images")
    local result, last = json.decode(out), runs.metrics(dir .. "/whole")[3]
    assert.same({ 0, 9, last.test_loss, last.test_acc }, { code, result.images, result.test_loss, result.test_acc })
  end)

  it("is the same from a packed file", function()
    assert.equal(0, (runs.mptl(dir, "data import images packed.mptl --quiet")))
    assert.equal(0, (runs.mptl(dir, "train small.lua --quiet --data packed.mptl --image-size 24 --out packed")))
    assert.is_true(runs.same_files(dir .. "/whole/last.safetensors", dir .. "/packed/last.safetensors"))
  end)

  it("measures its loader", function()
    local code, out = runs.mptl(dir, "bench loader --dataset imagenet --batch 4 --seconds 0.1 --json " .. options)
    local result = json.decode(out)
    assert.same({ 0, "imagenet", 1 }, { code, result.dataset, result.threads })
    assert.is_true(result.images_per_s > 0)
  end)

  it("is found by doctor", function()
    local _, out = runs.mptl(dir, "doctor --data images")
    assert.matches("\nimagenet +images\n", out)
  end)

  describe("with bad images", function()
    local saved = {}

    setup(function()
      for _, path in ipairs { "train/b/03.JPEG", "val/a/02.JPEG" } do
        path = dir .. "/images/" .. path
        saved[path] = runs.slurp(path)
        runs.spill(path, files.bytes(fixtures.png))
      end
    end)
    teardown(function()
      for path, bytes in pairs(saved) do runs.spill(path, bytes) end
    end)

    it("stops and names one", function()
      local code, _, err = train "--out stopped"
      assert.equal(1, code)
      assert.equal("mptl: images/train/b/03.JPEG: not a JPEG image but a PNG image; --on-bad-image skip leaves such images "
        .. "out\n", err)
    end)

    it("leaves them out when asked to, and says how many", function()
      local code, _, err = train "--out skipped --epochs 2 --on-bad-image skip"
      assert.equal(0, code)
      assert.equal([[
mptl: epoch 1: 1 training image left out; the last: images/train/b/03.JPEG: not a JPEG image but a PNG image
mptl: epoch 1: 1 test image left out; the last: images/val/a/02.JPEG: not a JPEG image but a PNG image
mptl: epoch 2: 1 training image left out; the last: images/train/b/03.JPEG: not a JPEG image but a PNG image
mptl: epoch 2: 1 test image left out; the last: images/val/a/02.JPEG: not a JPEG image but a PNG image
]], err)
      assert.is_true(is_share(runs.metrics(dir .. "/skipped")[2].train_acc, 20)) -- of 21 images
      assert.is_true(is_share(runs.metrics(dir .. "/skipped")[2].test_acc, 8))
      local _, out, complaint = runs.mptl(dir, "eval small.lua skipped/last.safetensors --json --data images --on-bad-image skip")
      assert.equal(8, json.decode(out).images)
      assert.equal("mptl: 1 test image left out; the last: images/val/a/02.JPEG: not a JPEG image but a PNG image\n", complaint)
    end)

    it("skips a batch that becomes too small for an operator", function()
      runs.spill(dir .. "/pixel.lua", [[
        local nn = require("mptl").nn
        return {
          model = function()
            return nn.Sequential { nn.Conv2d { 3, 4, kernel = 24 }, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear { 4, 3 } }
          end,
          dataset = "imagenet", batch = 2, limit_train = 20,
        }]])
      local code, _, err = runs.mptl(dir, "train pixel.lua --quiet --epochs 1 --out lonely --on-bad-image skip " .. options)
      assert.equal(0, code)
      assert.matches("epoch 1: 1 training image left out; .*\nmptl: epoch 1: no step for 1 good training image: bad ones left "
        .. "too few in the batch to normalise\n", err)
    end)

    it("stops when no step can be made", function()
      assert(os.execute(("mkdir %s/none; cp -r %s/images/* %s/none"):format(dir, dir, dir)))
      assert(os.execute(("for f in %s/none/train/*/*; do echo no image > $f; done"):format(dir)))
      local code, _, err = runs.mptl(dir, "train small.lua --quiet --out bad --data none --image-size 24 --on-bad-image skip")
      assert.equal(1, code)
      assert.matches("^mptl: epoch 1: no step was made: 21 training images left out; the last: none/train/[^\n]*\n$", err)
    end)
  end)

  it("says what is wrong", function()
    local function fails(arguments, message)
      local code, _, err = runs.mptl(dir, arguments)
      assert.same({ 2, "mptl train: " .. message .. "\n" }, { code, err })
    end
    fails("train small.lua --data nowhere", "dataset imagenet: not found: looked in nowhere for train/CLASS/*.JPEG with "
      .. "val/CLASS/*.JPEG, in it or in imagenet/, and for a packed file imagenet.mptl; any folders of JPEG images in this form "
      .. "will do: give --data DIR or --data FILE, or train without data: --dataset synthetic")
    fails("train small.lua --data images --image-size 1025",
      "--image-size: 1025, accepted are whole numbers from 1 to 1024")
    fails("train tiny.lua --dataset cifar10 --image-size 64", "--image-size 64: the images of cifar10 have 32 pixels each way")
    runs.spill(dir .. "/two.lua", (script:gsub("dataset = ", "classes = 2, dataset = ")))
    fails("train two.lua " .. options, "dataset imagenet: 3 classes, the network has 2")
  end)

  it("can use synthetic images of the same size instead", function()
    local code, _, err = runs.mptl(dir, "train small.lua --quiet --dataset synthetic --image-size 40 --epochs 1 --limit-train 16 "
      .. "--limit-test 8 --out synthetic --data images")
    assert.same({ 0, "" }, { code, err })
    local config = json.decode(runs.slurp(dir .. "/synthetic/config.json"))
    assert.same({ 3, 40, 40 }, config.input)
  end)
end)
