local core = require "mptl.core"
local files = require "data_files"
local fixtures = require "fixtures.images"
local isas = require "support.isas"
local lfs = require "lfs"

describe("images in a folder", function()
  local dir

  before_each(function() dir = files.directory() end)
  after_each(function() files.remove(dir) end)

  local function make(...)
    for _, path in ipairs { ... } do files.write(dir .. "/" .. path, "bytes of " .. path) end
  end

  local function open(split)
    return core.images_folder { path = dir, split = split }
  end

  local function fails(message, split)
    assert.has_error(function() open(split) end, (message:gsub("DIR", dir)))
  end

  it("are labelled by class, classes and files sorted", function()
    make("train/wolf/b.jpg", "train/wolf/a.JPEG", "train/Zebra/1.jpeg", "train/ant/10.JPG", "train/ant/9.Jpeg", "val/ant/x.JPEG")
    local images = open("train")
    assert.equal(5, images:count())
    assert.equal(3, images:classes())
    assert.same({ "Zebra", "ant", "wolf" }, { images:class_name(0), images:class_name(1), images:class_name(2) })
    local names, labels = {}, {}
    for i = 1, 5 do names[i], labels[i] = images:name(i), images:label(i) end
    assert.same({ "Zebra/1.jpeg", "ant/10.JPG", "ant/9.Jpeg", "wolf/a.JPEG", "wolf/b.jpg" }, names)
    assert.same({ 0, 1, 1, 2, 2 }, labels)
    assert.equal("bytes of train/ant/9.Jpeg", images:read(3))
    assert.equal(dir .. "/train", images:where())
    assert.equal(3, core.images_folder_classes(dir))
  end)

  it("have the training set's classes in val, which may lack some", function()
    make("train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "train/d/1.jpg", "val/b/1.jpg", "val/d/1.jpg", "val/d/2.jpg")
    lfs.mkdir(dir .. "/val/c")
    local images = open("test")
    assert.equal(4, images:classes())
    assert.same({ 1, 3, 3 }, { images:label(1), images:label(2), images:label(3) })
    assert.equal("bytes of val/d/2.jpg", images:read(3))
  end)

  it("may be links, and other files may be beside them", function()
    make("elsewhere/1.jpg", "train/a/1.jpg", "train/a/.2.jpg", "train/a/notes.txt", "train/a/jpg", "train/list.jpg",
      "train/.cache/1.jpg")
    lfs.link(dir .. "/elsewhere", dir .. "/train/b", true)
    lfs.link("1.jpg", dir .. "/train/a/3.jpg", true)
    lfs.mkdir(dir .. "/train/a/4.jpg")
    local images = open("train")
    assert.equal(3, images:count())
    assert.same({ "a/1.jpg", "a/3.jpg", "b/1.jpg" }, { images:name(1), images:name(2), images:name(3) })
    assert.equal("bytes of train/a/1.jpg", images:read(2))
  end)

  it("that cannot be read are named", function()
    make("train/a/1.jpg", "train/a/2.jpg", "val/a/1.jpg")
    local images = open("train")
    os.remove(dir .. "/train/a/2.jpg")
    local bytes, why = images:read(2)
    assert.is_nil(bytes)
    assert.equal(dir .. "/train/a/2.jpg: No such file or directory", why)
    assert.has_error(function() images:read(3) end, "images: image 3, accepted are 1 to 2")
    assert.has_error(function() images:class_name(1) end, "images: class 1, accepted are 0 to 0")
  end)

  it("names what is wrong with the folder", function()
    fails("DIR/train: No such file or directory")
    assert.equal(0, core.images_folder_classes(dir))
    lfs.mkdir(dir .. "/train")
    fails("DIR/train: no directories in it, must hold one for each class, with the class's images")
    lfs.mkdir(dir .. "/train/a")
    assert.equal(0, core.images_folder_classes(dir))
    fails("DIR/train/a: no images in it, files must be named *.JPEG or *.jpg")
    make("train/a/1.jpg")
    fails("DIR/val: No such file or directory", "test")
    make("val/1.jpg")
    fails("DIR/val: no directories in it, must hold one for each class, with the class's images", "test")
    lfs.mkdir(dir .. "/val/a")
    fails("DIR/val: no images in it, must hold CLASS/*.JPEG", "test")
    make("val/c/1.jpg", "train/b/1.jpg")
    fails("DIR/val/c: no class of that name in DIR/train, which has 2: a to b", "test")
    assert.has_error(function() core.images_folder {} end, "path: missing, must name a directory")
  end)
end)

describe("scaling", function()
  -- The bytes that spec/make_image_fixture.py paints.
  local function painted(width, height)
    local values = {}
    for y = 0, height - 1 do
      for x = 0, width - 1 do
        for c = 0, 2 do values[#values + 1] = (x * x * 7 + y * 31 + x * y * 3 + c * 85) % 256 end
      end
    end
    return core.tensor({ height, width, 3 }, values)
  end

  for _, case in ipairs(fixtures.scaled) do
    it("is Pillow's: " .. case.name, function()
      for _, isa in ipairs(isas) do
        core.isa(isa)
        local scaled = core.resample(painted(case.size[1], case.size[2]),
          { width = case.width, height = case.height, from = case.from, window = case.window })
        assert.same(case.pixels, scaled:totable())
      end
      core.isa "auto"
    end)
  end

  it("names boxes that are not within the image", function()
    local image = painted(4, 3)
    assert.has_error(function() core.resample(image, { from = { 1, 0, 4, 3 } }) end,
      "resample: 4 x 3 at 1, 0 of 4 x 3 pixels to 4 x 3 at 0, 0 of 4 x 3: not within it")
    assert.has_error(function() core.resample(image, { width = 2, height = 2, window = { 0, 0, 2, 0 } }) end,
      "resample: 4 x 3 at 0, 0 of 4 x 3 pixels to 2 x 0 at 0, 0 of 2 x 2: not within it")
    assert.has_error(function() core.resample(image, { width = 0 }) end,
      "resample: to 0 x 3 pixels, accepted are 1 to 67108864 each way")
    assert.has_error(function() core.resample(image, { from = { 1 } }) end, "from: must be a list of x, y, width, height")
  end)
end)

describe("decoder", function()
  it("decodes what Pillow writes", function()
    for _, case in ipairs(fixtures.jpegs) do
      local bytes = files.bytes(case.jpeg)
      assert.same({ case.width, case.height }, { core.decoder():check(bytes) })
      assert.same({ case.height, case.width, 3 }, core.decoder():decode(bytes):size())
    end
  end)

  it("says what it does not accept", function()
    assert.same({ nil, "not a JPEG image but a PNG image" }, { core.decoder():check(files.bytes(fixtures.png)) })
    local bytes = files.bytes(fixtures.jpegs[1].jpeg)
    assert.same({ nil, "a truncated JPEG image (Premature end of JPEG file)" }, { core.decoder():decode(bytes:sub(1, -40)) })
  end)

  it("decodes what core.jpeg_encode writes", function()
    local image = core.tensor { 20, 30, 3 }
    image:fill(77)
    local decoded = core.decoder():decode(core.jpeg_encode(image, 95))
    assert.same({ 20, 30, 3 }, decoded:size())
    assert.near(77, decoded:get(1), 2)
    assert.has_error(function() core.jpeg_encode(image, 101) end, "JPEG quality: 0, accepted are 1 to 100")
    assert.has_error(function() core.jpeg_encode(core.tensor { 4, 4 }) end,
      "jpeg_encode: a tensor of another shape, must be height x width x 3")
  end)
end)
