--- The images of a folder or an archive, as they come, with the split and class that their paths tell.
--
-- Accepted paths: SPLIT/CLASS/FILE, where SPLIT is train, test or val and anything may stand before it; or CLASS/FILE, which is
-- of the training set. A tar in an archive, CLASS.tar, holds the images of that class (as in ImageNet's training set). What
-- begins with a dot, a file or a folder, is left out: caches and thumbnails of other programs, which would be classes else.
local core = require "mptl.core"
local lfs = require "lfs"
local misuse = require "mptl.misuse"

local M = {}

local splits = { train = "train", test = "test", val = "test", valid = "test", validation = "test" }

local largest_image, largest_archive = 1 << 28, 1 << 32 -- bytes
local deepest = 16 -- folders within folders; links may go round in circles

--- Split, class and file name of an image.
-- @param path relative to the source
-- @param options {split = what all images are, labels = class by file name without its ending}, both may be nil
-- @return split (nil when the path names none), class, file; or nil, nil, nil, and what is wrong
-- @usage source.place("imagenet/train/n01440764/1.JPEG", {}) --> "train", "n01440764", "1.JPEG"
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

--- The part of a path, from its beginning, that ends with the first name that begins with a dot.
-- @param path relative to the source
-- @return the part; nil when there is none
-- @usage source.hidden("./train/.cache/1.jpg") --> "train/.cache"
function M.hidden(path)
  local parts = {}
  for part in path:gmatch "[^/]+" do
    if part ~= "." then parts[#parts + 1] = part end
    if part:sub(1, 1) == "." and part ~= "." and part ~= ".." then return table.concat(parts, "/") end
  end
end

--- Whether a path ends like that of an image.
-- @param path the path
-- @return true or false
function M.is_image(path)
  local ending = path:match "%.(%a+)$"
  return ending ~= nil and (ending:lower() == "jpg" or ending:lower() == "jpeg")
end

--- The class of each image in a text file: a line each, the file's name (its ending may be missing) and the class, with spaces
-- or a comma between; what follows them is passed over.
-- @param path of the text file
-- @return table of classes by file name without ending
function M.labels(path)
  local labels, n = {}, 0
  local file <close>, message = core.open(path)
  if not file then misuse.usage("--test-labels %s", message) end
  for line in file:lines() do
    n = n + 1
    local name, class = line:match "^%s*([^%s,]+)[%s,]+([^%s,]+)"
    if name then labels[(name:match("[^/]*$"):gsub("%.[^.]*$", ""))] = class
    elseif line:match "%S" then error(("%s: line %d: %s, accepted is FILE CLASS"):format(path, n, line:sub(1, 60)), 0) end
  end
  return labels
end

-- Every source is an iterator of (path, kind, read), and tells how much of it is done; kind is "file" or "other".

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

local function folder(root)
  local list, i = {}, 0
  list_folder(list, root, "", 1)
  local function step()
    i = i + 1
    if not list[i] then return nil end
    local path, kind = table.unpack(list[i])
    return path, kind, function() return read_file(root .. "/" .. path) end
  end
  return step, function() return i / math.max(#list, 1) end
end

local function archive(path)
  local outer = core.archive(path)
  local inner, class
  local size = math.max(lfs.attributes(path, "size"), 1)
  local function step()
    if inner then
      local name, kind = inner:next()
      if name and kind == "directory" then return step() end
      if name then
        local from = inner
        return class .. "/" .. name:gsub("^%./", ""), kind, function() return from:read(largest_image) end
      end
      inner = nil
    end
    local name, kind = outer:next()
    if not name then return nil end
    if kind == "directory" then return step() end
    if kind == "file" and name:match "%.tar$" and not M.hidden(name) then
      class = name:gsub("%.tar$", "")
      inner = core.archive_of(outer:read(largest_archive), path .. ": " .. name)
      return step()
    end
    return name, kind, function() return outer:read(largest_image) end
  end
  return step, function() return math.min(outer:done() / size, 1) end
end

--- Opens a source.
-- @param path a folder, or a tar or zip file
-- @return an iterator of (path within the source, "file" or "other", function that reads it); and a function that tells how much
--   is done, from 0 to 1
function M.open(path)
  local mode, message = lfs.attributes(path, "mode")
  if not mode then misuse.usage("%s", (message:gsub("^cannot obtain information from file '.*': ", path .. ": "))) end
  if mode == "directory" then return folder(path) end
  if mode == "file" then return archive(path) end
  misuse.usage("%s: a %s, accepted are folders, tar and zip files", path, mode)
end

return M
