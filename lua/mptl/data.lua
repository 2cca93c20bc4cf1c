--- Data sets by name: where they are looked for, what they are normalised with.
-- @module mptl.data
local core = require "mptl.core"
local misuse = require "mptl.misuse"

local M = {}

-- Means and standard deviations of the training images' channels, in units of the full range. CIFAR's are those of the
-- published experiments.
local sets = {
  cifar10 = { title = "CIFAR-10", classes = 10, mean = { 0.4914, 0.4822, 0.4465 }, std = { 0.2023, 0.1994, 0.2010 } },
  cifar100 = { title = "CIFAR-100", classes = 100, mean = { 0.5074, 0.4867, 0.4411 }, std = { 0.2011, 0.1987, 0.2025 } },
  synthetic = { classes = 10, mean = { 0.5, 0.5, 0.5 }, std = { 0.15, 0.15, 0.13 }, train = 50000, test = 10000 },
}

--- The accepted names.
M.names = { "cifar10", "cifar100", "synthetic" }

local function fail(...)
  error(string.format(...), 0)
end

local function lookup(name)
  local set = sets[name]
  if not set then fail("dataset: %s, accepted are %s", tostring(name), table.concat(M.names, ", ")) end
  return set
end

--- The directories in which data sets are looked for, in this order.
-- A directory that was asked for is the only one: another data set in its place would go unnoticed.
-- @param dir directory that was asked for, or nil: then $MPTL_DATA and $XDG_DATA_HOME/mptl (or ~/.local/share/mptl)
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

--- Where a data set is.
-- @param name one of `names`
-- @param dir directory that was asked for, or nil
-- @return the directory that holds the training set's files; nil when there is none, and for "synthetic", which has no files
function M.find(name, dir)
  local set = lookup(name)
  if name == "synthetic" then return nil end
  for _, place in ipairs(M.places(dir)) do
    local found = core.dataset_find{ path = place, classes = set.classes, split = "train" }
    if found then return found end
  end
end

local function fail_missing(name, dir)
  local places = M.places(dir)
  local where = #places > 0 and table.concat(places, " and ")
    or "no directory, as MPTL_DATA, XDG_DATA_HOME and HOME are not set"
  local subdir = name == "cifar10" and "cifar-10-batches-bin" or "cifar-100-binary"
  misuse.usage("dataset %s: not found: looked in %s for *.bin or %s/*.bin; get the binary version of %s at "
    .. "https://www.cs.toronto.edu/~kriz/cifar.html, unpack it into DIR and give --data DIR, "
    .. "or train without data: --dataset synthetic", name, where, subdir, sets[name].title)
end

local function check_limit(options, field)
  local limit = options[field]
  if limit == nil then return nil end
  if math.type(limit) ~= "integer" or limit < 1 then fail("%s: %s, must be a positive integer", field, tostring(limit)) end
  return limit
end

local fields = { dataset = true, dir = true, limit_train = true, limit_test = true, seed = true }

--- Opens a data set.
-- @param options `dataset` one of `names`; `dir` where to look; `limit_train`, `limit_test` keep that many images from the
--   beginning; `seed` of the synthetic set (0)
-- @return a table: `train` and `test` (data sets of the core), `mean` and `std` (a number for each channel), `classes`, `name`,
--   and `dir` where there is one
-- @usage local d = mptl.data.open{ dataset = "cifar10", dir = "cifar-10-batches-bin", limit_train = 5000 }
function M.open(options)
  for key in pairs(options) do
    if not fields[key] then
      fail("data.open: unknown option %s, accepted are dataset, dir, limit_train, limit_test, seed", tostring(key))
    end
  end
  local name = options.dataset
  local set = lookup(name)
  local limits = { train = check_limit(options, "limit_train"), test = check_limit(options, "limit_test") }
  local opened = {
    name = name, classes = set.classes, dir = M.find(name, options.dir),
    mean = { table.unpack(set.mean) }, std = { table.unpack(set.std) },
  }
  if name ~= "synthetic" and not opened.dir then fail_missing(name, options.dir) end
  for _, split in ipairs{ "train", "test" } do
    if name == "synthetic" then
      opened[split] = core.dataset_synthetic{ count = set[split], classes = set.classes, split = split, seed = options.seed,
        limit = limits[split] }
    else
      opened[split] = core.dataset_cifar{ path = opened.dir, classes = set.classes, split = split, limit = limits[split] }
    end
  end
  return opened
end

return M
