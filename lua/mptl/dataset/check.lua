--- What is in a data set, and what is wrong with it.
local core = require "mptl.core"
local folder = require "mptl.folder"
local json = require "mptl.json"
local lfs = require "lfs"
local misuse = require "mptl.misuse"

local M = {}

local at_once = 1024 -- images between two calls of the progress display

local function cifar(kind, title, classes, names_file)
  return {
    name = kind, title = title .. " in binary layout", names_file = names_file, classes = classes,
    find = function(path)
      for _, split in ipairs { "train", "test" } do
        local found = core.dataset_find { path = path, classes = classes, split = split }
        if found then return found end
      end
    end,
    in_parts = true,
    open = function(path, split, part)
      if not core.dataset_find { path = path, classes = classes, split = split } then
        error(("%s: no %s images in it"):format(path, split == "train" and "training" or "test"), 0)
      end
      return core.dataset_cifar { path = path, classes = classes, split = split, part = part }
    end,
  }
end

-- Whether a file begins like a packed data set. The rest of it may be damaged.
local function begins_packed(path)
  local file <close> = core.open(path)
  return file and file:read(8) == "MPTLPACK"
end

-- The kinds of data sets. find: function (path) -> where the data set is, or nil. open: function
-- (that place, split) -> the core's data set. in_parts: whether open takes a third argument, which
-- opens a data set that lacks files.
M.kinds = {
  cifar("cifar10", "CIFAR-10", 10, "batches.meta.txt"),
  cifar("cifar100", "CIFAR-100", 100, "fine_label_names.txt"),
  {
    name = "folder", title = "folder of images",
    find = function(path) return lfs.attributes(path .. "/train", "mode") == "directory" and path or nil end,
    open = function(path, split) return core.images_folder { path = path, split = split } end,
  },
  {
    name = "packed", title = "packed data set",
    find = function(path) return lfs.attributes(path, "mode") == "file" and begins_packed(path) and path or nil end,
    open = function(path, split) return core.images_packed { path = path, split = split } end,
  },
}

--- The data set at a path.
-- @param path a file or folder
-- @return its kind and where it is; raises a usage error when there is none, or more than one
function M.find(path)
  folder.mode(path)
  local kinds, places = {}, {}
  for _, kind in ipairs(M.kinds) do
    local place = kind.find(path)
    if place then kinds[#kinds + 1], places[#places + 1] = kind, place end
  end
  if #kinds == 1 then return kinds[1], places[1] end
  if #kinds > 1 then misuse.usage("%s: several data sets: %s; name one of them", path, table.concat(places, ", ")) end
  misuse.usage("%s: no data set, accepted are CIFAR's binary files, a folder with train/CLASS/*.jpg and val/, a packed file",
    path)
end

-- The names of a CIFAR data set's classes, from its own file; their numbers when that is missing.
local function cifar_names(kind, place, problems)
  local names, seen = {}, {}
  local file <close> = core.open(place .. "/" .. kind.names_file)
  for line in file and file:lines() or function() end do
    local name = line:match "^%s*(.-)%s*$"
    if name ~= "" then
      if seen[name] then problems[#problems + 1] = ("%s: two classes are named %s"):format(kind.names_file, name) end
      seen[name] = true
      names[#names + 1] = name
    end
  end
  if #names > 0 and #names ~= kind.classes then
    problems[#problems + 1] = ("%s: %d names, must be %d"):format(kind.names_file, #names, kind.classes)
  end
  if #names == kind.classes then return names end
  local numbers = {}
  for c = 1, kind.classes do numbers[c] = tostring(c - 1) end
  return numbers
end

local function class_names(kind, place, set, problems)
  if kind.names_file then return cifar_names(kind, place, problems) end
  local names = {}
  for c = 1, set:classes() do names[c] = set:class_name(c - 1) end
  return names
end

local Survey = {}
Survey.__index = Survey

function Survey:problem(format, ...)
  self.problems[#self.problems + 1] = format:format(...)
end

-- An image in words: its split and name, or its number where images have no names.
local function name_of(set, split, i)
  return ("%s %s"):format(split, set.name and set:name(i) or ("image %d"):format(i))
end

-- Notes an image that was seen before: with the same bytes or, where images are not encoded, the
-- same pixels.
function Survey:compare(set, split, i, hash)
  local before = self.seen[hash]
  if not before then
    self.seen[hash] = i * 2 + (split == "test" and 1 or 0)
    return
  end
  local other_split, j = before % 2 == 1 and "test" or "train", before // 2
  local other = self.sets[other_split]
  self.duplicates.images = self.duplicates.images + 1
  if other_split ~= split then self.duplicates.across = self.duplicates.across + 1 end
  if other:label(j) ~= set:label(i) then
    self.duplicates.labels_differ = self.duplicates.labels_differ + 1
    self:problem("%s and %s: the same image under two labels, %s and %s", name_of(other, other_split, j), name_of(set, split, i),
      self.names[other:label(j) + 1], self.names[set:label(i) + 1])
  end
end

-- Adds the result of core.survey for some images to the split's table.
local function add(t, found)
  t.pixels, t.warned = t.pixels + found.pixels, t.warned + found.warned
  for c = 1, 3 do
    t.sum[c] = t.sum[c] + found.sum[c]
    t.squares[c] = t.squares[c] + found.squares[c]
  end
  if not found.min then return end
  for side = 1, 2 do
    t.min[side] = math.min(t.min[side] or found.min[side], found.min[side])
    t.max[side] = math.max(t.max[side] or 0, found.max[side])
  end
end

-- Examines all images of a split; nil when interrupted.
function Survey:split(split, note)
  local set = self.sets[split]
  local t = {
    images = set:count(), bad = 0, warned = 0, counts = {}, pixels = 0, sum = { 0, 0, 0 }, squares = { 0, 0, 0 },
    min = {}, max = {},
  }
  for c = 1, #self.names do t.counts[c] = 0 end
  for first = 1, t.images, at_once do
    if core.interrupted() then return nil end
    local n = math.min(at_once, t.images - first + 1)
    local found = core.survey(set, first, n)
    add(t, found)
    for _, bad in ipairs(found.bad) do self:problem("%s: %s", name_of(set, split, bad[1]), bad[2]) end
    t.bad = t.bad + #found.bad
    for k = 1, n do
      local i = first + k - 1
      local class = set:label(i) + 1
      t.counts[class] = t.counts[class] + 1
      if found.hashes[k] ~= 0 then self:compare(set, split, i, found.hashes[k]) end
    end
    note(split, first + n - 1, t.images)
  end
  return t
end

local function described(t)
  if not t then return json.null end
  return json.object({ "images", "bad", "warned", "min", "max", "counts" }, {
    images = t.images, bad = t.bad, warned = t.warned, min = json.array(t.min), max = json.array(t.max),
    counts = json.array(t.counts),
  })
end

-- Mean and standard deviation over the pixels of all images, one number per channel.
local function statistics(t)
  local mean, std = json.array {}, json.array {}
  for c = 1, t.pixels > 0 and 3 or 0 do
    mean[c] = t.sum[c] / t.pixels / 255
    std[c] = math.sqrt(math.max(t.squares[c] / t.pixels / 255 ^ 2 - mean[c] ^ 2, 0))
  end
  return mean, std
end

-- Opens both splits; where a split lacks files, what there is of it.
function Survey:open(kind, place)
  for _, split in ipairs { "train", "test" } do
    local ok, set = pcall(kind.open, place, split)
    if not ok then
      local message = set
      if message ~= self.problems[1] then self:problem("%s", message) end -- often the same for both
      if kind.in_parts then ok, set = pcall(kind.open, place, split, true) end
    end
    if ok then self.sets[split] = set end
  end
end

--- Examines every image of a data set.
-- @param path the data set
-- @param note function (split, done, of) to call now and then
-- @return a table for json.encode, and the kind in words; nil when interrupted
function M.survey(path, note)
  local kind, place = M.find(path)
  local survey = setmetatable({ problems = json.array {}, seen = {}, sets = {},
    duplicates = json.object({ "images", "across", "labels_differ" }, { images = 0, across = 0, labels_differ = 0 }) }, Survey)
  survey:open(kind, place)
  local any = survey.sets.train or survey.sets.test
  survey.names = any and class_names(kind, place, any, survey.problems) or {}
  local splits = {}
  for _, split in ipairs { "train", "test" } do
    if survey.sets[split] then
      splits[split] = survey:split(split, note)
      if not splits[split] then return nil end
    end
  end
  for c, n in ipairs(splits.train and splits.train.counts or {}) do
    if n == 0 then survey:problem("class %s: no training images", survey.names[c]) end
  end
  local result = { kind = kind.name, path = place, classes = json.array(survey.names), train = described(splits.train),
    test = described(splits.test), duplicates = survey.duplicates, problems = survey.problems }
  result.mean, result.std = statistics(splits.train or { pixels = 0 })
  return json.object({ "kind", "path", "classes", "train", "test", "mean", "std", "duplicates", "problems" }, result), kind.title
end

return M
