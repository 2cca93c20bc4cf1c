--- Data sets by name: where to look for them, their shapes, mean and deviation for normalising.
-- @module mptl.data
local core = require "mptl.core"
local misuse = require "mptl.misuse"
local shell = require "mptl.shell"

local M = {}

-- side: of the images, in pixels. classes: of imagenet only where no data are found; else they are
-- counted. mean, std: of each channel of the training images, in units of the full range; CIFAR's
-- as in the published experiments.
local sets = {
  cifar10 = {
    title = "CIFAR-10", side = 32, classes = 10, mean = { 0.4914, 0.4822, 0.4465 }, std = { 0.2023, 0.1994, 0.2010 },
  },
  cifar100 = {
    title = "CIFAR-100", side = 32, classes = 100, mean = { 0.5074, 0.4867, 0.4411 }, std = { 0.2011, 0.1987, 0.2025 },
  },
  imagenet = { side = 224, classes = 1000, any_side = true, mean = { 0.485, 0.456, 0.406 }, std = { 0.229, 0.224, 0.225 } },
  synthetic = { side = 32, classes = 10, any_side = true, mean = { 0.5, 0.5, 0.5 }, std = { 0.15, 0.15, 0.13 } },
}

-- The most images of the synthetic sets, and the most bytes that they may take.
local synthetic = { train = { images = 50000, bytes = 2 ^ 28 }, test = { images = 10000, bytes = 2 ^ 26 } }

local packed_name = "imagenet.mptl" -- name of a packed data set in a folder of data sets

--- The accepted names.
M.names = { "cifar10", "cifar100", "imagenet", "synthetic" }

local function fail(...)
  error(string.format(...), 0)
end

local function lookup(name)
  local set = sets[name]
  if not set then fail("dataset: %s, accepted are %s", tostring(name), table.concat(M.names, ", ")) end
  return set
end

--- The directories to look for data sets in, in this order. A directory that the user names is the
-- only one, so that no other data set is taken silently.
-- @param dir directory that the user names; nil for $MPTL_DATA and $XDG_DATA_HOME/mptl (or
--   ~/.local/share/mptl)
-- @return a list
function M.places(dir)
  if dir then return { dir } end
  local places = {}
  local function add(place, suffix)
    if place and place ~= "" then places[#places + 1] = place .. (suffix or "") end
  end
  add(os.getenv("MPTL_DATA"))
  local xdg, home = os.getenv("XDG_DATA_HOME"), os.getenv("HOME")
  if xdg and xdg ~= "" then add(xdg, "/mptl") else add(home, "/.local/share/mptl") end
  return places
end

-- Encoded images at a place: their path, the number of classes, and the function of the core that
-- opens them; nil when there are none.
local function find_encoded(place)
  for _, path in ipairs{ place, place .. "/" .. packed_name } do
    local classes = core.images_packed_classes(path)
    if classes > 0 then return path, classes, core.images_packed end
  end
  for _, path in ipairs{ place, place .. "/imagenet" } do
    local classes = core.images_folder_classes(path)
    if classes > 0 then return path, classes, core.images_folder end
  end
end

-- Returns the results of M.find, and as third result the opening function from find_encoded.
local function locate(name, dir)
  local set = lookup(name)
  if name == "synthetic" then return nil end
  for _, place in ipairs(M.places(dir)) do
    local found, classes, open
    if name == "imagenet" then
      found, classes, open = find_encoded(place)
    else
      found, classes = core.dataset_find{ path = place, classes = set.classes, split = "train" }, set.classes
    end
    if found then return found, classes, open end
  end
end

--- Where a data set is.
-- @param name one of M.names
-- @param dir directory that the user names, or nil; for imagenet also a packed file
-- @return the directory with the training set's files, or the packed file, and the number of
--   classes; nil when there is none, and for "synthetic", which has no files
function M.find(name, dir)
  local found, classes = locate(name, dir)
  return found, classes
end

--- The shape of a data set's images, and its number of classes. Classes of imagenet are counted, or
-- 1000 when it is not found.
-- @param name one of M.names
-- @param dir where to look; false: nowhere
-- @param side side of the images, or nil; an error for data sets whose images all have the same
--   size
-- @return {channels, height, width}, classes
function M.shape(name, dir, side)
  local set = lookup(name)
  if side and side ~= set.side and not set.any_side then
    misuse.usage("--image-size %d: the images of %s have %d pixels each way", side, name, set.side)
  end
  side = side or set.side
  local classes = name == "imagenet" and dir ~= false and select(2, M.find(name, dir)) or set.classes
  return { 3, side, side }, classes
end

local function fail_missing(name, dir)
  local places = M.places(dir)
  local where = #places > 0 and table.concat(places, " and ")
    or "no directory, as MPTL_DATA, XDG_DATA_HOME and HOME are not set"
  if name == "imagenet" then
    misuse.usage("dataset imagenet: not found: looked in %s for train/CLASS/*.JPEG with val/CLASS/*.JPEG, in it or in imagenet/, "
      .. "and for a packed file %s; any folders of JPEG images in this form will do: give --data DIR or --data FILE, "
      .. "or train without data: --dataset synthetic", where, packed_name)
  end
  local subdir = name == "cifar10" and "cifar-10-batches-bin" or "cifar-100-binary"
  misuse.usage("dataset %s: not found: looked in %s for *.bin or %s/*.bin; %s downloads it; or get the binary "
    .. "version of %s at https://www.cs.toronto.edu/~kriz/cifar.html, unpack it into DIR and give --data DIR, "
    .. "or train without data: --dataset synthetic", name, where, subdir,
    shell.command { "data", "fetch", name, table.unpack(dir and { "--data", dir } or {}) }, sets[name].title)
end

local function check_limit(options, field)
  local limit = options[field]
  if limit == nil then return nil end
  if math.type(limit) ~= "integer" or limit < 1 then fail("%s: %s, must be a positive integer", field, tostring(limit)) end
  return limit
end

-- By data set: function (the result of M.open so far, opening function of encoded images, split,
-- limit of its images, options) -> the core's data set.
local openers = {}

function openers.cifar10(opened, _, split, limit)
  return core.dataset_cifar{ path = opened.dir, classes = opened.classes, split = split, limit = limit }
end

openers.cifar100 = openers.cifar10

-- The shorter side of a test image becomes 256 pixels for networks that take 224, and in proportion
-- for others.
function openers.imagenet(opened, open, split, limit, options)
  local side = options.image_size or sets.imagenet.side
  return core.dataset_encoded(open{ path = opened.dir, split = split }, { split = split, side = side, limit = limit,
    resize = (side * 256 + 112) // 224, skip_bad = options.on_bad_image == "skip" })
end

function openers.synthetic(opened, _, split, limit, options)
  local side, most = options.image_size or sets.synthetic.side, synthetic[split]
  local count = math.min(most.images, most.bytes // (3 * side * side) | 0)
  return core.dataset_synthetic{ count = count, classes = opened.classes, side = side, split = split, seed = options.seed,
    limit = limit }
end

local fields = {
  dataset = true, dir = true, image_size = true, limit_train = true, limit_test = true, on_bad_image = true, seed = true,
}

--- Opens a data set.
-- @param options `dataset`: one of M.names; `dir`: where to look; `image_size`: side of the images
--   of imagenet (default 224) or synthetic (32); `limit_train`, `limit_test`: how many images to
--   keep, of imagenet spread evenly over all, else the first ones; `on_bad_image`: "stop" (default)
--   or "skip" when an image cannot be decoded; `seed`: of the synthetic set (0)
-- @return a table: `train` and `test` (data sets of the core), `mean` and `std` (a number for each
--   channel), `classes`, `name`, `dir` (nil for synthetic), and `encoded`: whether images are
--   decoded each time they are needed
-- @usage local d = mptl.data.open{ dataset = "cifar10", dir = "cifar-10-batches-bin", limit_train = 5000 }
function M.open(options)
  for key in pairs(options) do
    if not fields[key] then
      fail("data.open: unknown option %s, accepted are %s", tostring(key), table.concat(misuse.names(fields), ", "))
    end
  end
  local name = options.dataset
  local set = lookup(name)
  local limits = { train = check_limit(options, "limit_train"), test = check_limit(options, "limit_test") }
  local dir, classes, open = locate(name, options.dir)
  if name ~= "synthetic" and not dir then fail_missing(name, options.dir) end
  local opened = {
    name = name, classes = classes or set.classes, dir = dir, encoded = name == "imagenet",
    mean = { table.unpack(set.mean) }, std = { table.unpack(set.std) },
  }
  for _, split in ipairs{ "train", "test" } do opened[split] = openers[name](opened, open, split, limits[split], options) end
  return opened
end

return M
