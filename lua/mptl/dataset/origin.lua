--- Origins of data sets: the images of a folder or an archive, one after the other, with split and
-- class from their paths.
--
-- Accepted paths: SPLIT/CLASS/FILE, where SPLIT is train, test or val and may have folders before
-- it; or CLASS/FILE, for the training set. In an archive, CLASS.tar has the images of that class
-- (as in ImageNet's training set). Files and folders whose names begin with a dot are skipped: they
-- are caches and thumbnails of other programs, and would count as classes.
local core = require "mptl.core"
local folder = require "mptl.folder"
local lfs = require "lfs"
local misuse = require "mptl.misuse"

local M = {}

local splits = { train = "train", test = "test", val = "test", valid = "test", validation = "test" }

local largest_image, largest_archive = 1 << 28, 1 << 32 -- bytes
local deepest = 16 -- most folders within folders: links may form a circle

--- Split, class and file name of an image.
-- @param path path relative to the origin
-- @param options {split = the split of all images, labels = class by file name without its ending};
--   both may be nil
-- @return split (nil when the path has none), class, file; or nil, nil, nil and what is wrong
-- @usage origin.place("imagenet/train/n01440764/1.JPEG", {}) --> "train", "n01440764", "1.JPEG"
function M.place(path, options)
  if path:find "%c" then return nil, nil, nil, "its path has control characters" end
  local parts = {}
  for part in path:gmatch "[^/]+" do
    if part == ".." then return nil, nil, nil, "its path leads out of the source" end
    if part ~= "." then parts[#parts + 1] = part end
  end
  for i = 1, #parts - 2 do
    if splits[parts[i]] then
      return options.split or splits[parts[i]], parts[i + 1], table.concat(parts, "/", i + 2)
    end
  end
  local file = parts[#parts]
  local class = options.labels and options.labels[(file:gsub("%.[^.]*$", ""))]
  if not class and not options.labels then class = parts[#parts - 1] end
  if class then return options.split, class, file end
  return nil, nil, nil, options.labels and "the file of labels does not name it" or "no class: it is not in a folder"
end

--- The hidden file or folder on a path: the path up to the first name that begins with a dot.
-- @param path path relative to the origin
-- @return that beginning of the path; nil when no name begins with a dot
-- @usage origin.hidden("./train/.cache/1.jpg") --> "train/.cache"
function M.hidden(path)
  local parts = {}
  for part in path:gmatch "[^/]+" do
    if part ~= "." then parts[#parts + 1] = part end
    if part:sub(1, 1) == "." and part ~= "." and part ~= ".." then return table.concat(parts, "/") end
  end
end

--- Whether a path ends in .jpg or .jpeg, in small or capital letters.
-- @param path the path
-- @return true or false
function M.is_image(path)
  local ending = path:match "%.(%a+)$"
  return ending ~= nil and (ending:lower() == "jpg" or ending:lower() == "jpeg")
end

--- Reads the classes of images from a text file. A line has an image's file name, with or without
-- its ending, and its class, with spaces or a comma between them; the rest of the line is ignored.
-- @param path path of the text file
-- @return table: file name without ending -> class
function M.labels(path)
  local labels, n = {}, 0
  local file <close>, message = core.open(path)
  if not file then misuse.usage("--test-labels %s", message) end
  for line in file:lines() do
    n = n + 1
    local name, class = line:match "^%s*([^%s,]+)[%s,]+([^%s,]+)"
    if name then
      labels[(name:match("[^/]*$"):gsub("%.[^.]*$", ""))] = class
    elseif line:match "%S" then
      error(("%s: line %d: %s, accepted is FILE CLASS"):format(path, n, line:sub(1, 60)), 0)
    end
  end
  return labels
end

-- An origin is an iterator of (path, kind, read), where kind is "file" or "other" and read a
-- function; and a function that returns how much of it is done, from 0 to 1.

local function list_folder(list, root, inside, depth)
  if depth > deepest then error(("%s/%s: more than %d folders deep"):format(root, inside, deepest), 0) end
  local names, from = {}, root .. "/" .. inside
  local ok, iterator, handle = pcall(lfs.dir, from)
  if not ok then error((iterator:gsub("^cannot open ", "")), 0) end
  for name in iterator, handle do
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local path = inside == "" and name or inside .. "/" .. name
    local mode = lfs.attributes(root .. "/" .. path, "mode")
    if mode == "directory" and not M.hidden(name) then
      list_folder(list, root, path, depth + 1)
    else
      list[#list + 1] = { path, mode == "file" and "file" or "other" }
    end
  end
end

local function read_file(path)
  local file <close>, message = core.open(path)
  if not file then error(message, 0) end
  local bytes
  bytes, message = file:read "a"
  if not bytes then error(("%s: %s"):format(path, message), 0) end
  return bytes
end

local function open_folder(root)
  local list, i = {}, 0
  list_folder(list, root, "", 1)
  local function next_item()
    i = i + 1
    if not list[i] then return nil end
    local path, kind = table.unpack(list[i])
    return path, kind, function() return read_file(root .. "/" .. path) end
  end
  return next_item, function() return i / math.max(#list, 1) end
end

local function open_archive(path)
  local outer = core.archive(path)
  local inner, class
  local size = math.max(lfs.attributes(path, "size"), 1)
  local function next_item()
    if inner then
      local name, kind = inner:next()
      if name and kind == "directory" then return next_item() end
      if name then
        local from = inner
        return class .. "/" .. name:gsub("^%./", ""), kind, function() return from:read(largest_image) end
      end
      inner = nil
    end
    local name, kind = outer:next()
    if not name then return nil end
    if kind == "directory" then return next_item() end
    if kind == "file" and name:match "%.tar$" and not M.hidden(name) then
      class = name:gsub("%.tar$", "")
      inner = core.archive_of(outer:read(largest_archive), path .. ": " .. name)
      return next_item()
    end
    return name, kind, function() return outer:read(largest_image) end
  end
  return next_item, function() return math.min(outer:done() / size, 1) end
end

--- Opens an origin.
-- @param path a folder, or a tar or zip file
-- @return an iterator of (path within the origin, "file" or "other", function that reads it); and a
--   function that returns how much is done, from 0 to 1
function M.open(path)
  local mode = folder.mode(path)
  if mode == "directory" then return open_folder(path) end
  if mode == "file" then return open_archive(path) end
  misuse.usage("%s: a %s, accepted are folders, tar and zip files", path, mode)
end

return M
