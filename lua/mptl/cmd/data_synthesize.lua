--- mptl data synthesize: the built-in synthetic images as a data set on disk.
local core = require "mptl.core"
local folder = require "mptl.folder"
local layouts = require "mptl.dataset.layouts"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local options = require "mptl.options"
local progress = require "mptl.progress"

local M = { name = "synthesize", summary = "write the built-in synthetic images as a data set" }

local largest = 1024 -- pixels a side

-- Reads "64" or "48x32" as {width, height}, "32-256" as {least, most} pixels of a side.
local function parse_size(text)
  local from, to = text:match "^(%d+)%-(%d+)$"
  local width, height = text:match "^(%d+)x(%d+)$"
  if not width then width, height = text:match "^%d+$", text:match "^%d+$" end
  local a, b = math.tointeger(tonumber(from or width)), math.tointeger(tonumber(to or height))
  if a and b and a >= 1 and b >= 1 and a <= largest and b <= largest and not (from and a > b) then
    return { a, b, range = from ~= nil }
  end
  return nil, ("--size: %s, accepted are N, WIDTHxHEIGHT and LEAST-MOST, of 1 to %d pixels"):format(text, largest)
end

function M.configure(parser)
  parser:argument("out", "the folder to write, or with --layout packed the file; it must not exist")
    :argname("OUT")
  options.add_row(parser, { "layout", "choice", choices = layouts.names,
    help = "CIFAR's binary files, a folder with JPEG images in train/CLASS and val/CLASS, or a packed"
      .. " file (default cifar10)" })
  options.add_row(parser, { "train", "whole", min = 1, max = 10 ^ 7, help = "training images (default 5000)" })
  options.add_row(parser, { "test", "whole", min = 1, max = 10 ^ 7, help = "test images (default 1000)" })
  options.add_row(parser, { "classes", "whole", min = 2, max = 100,
    help = "number of classes, for the layouts folder and packed (default 10)" })
  parser:option("--size", "size of images in pixels, for the layouts folder and packed (default 64): "
    .. "N, WIDTHxHEIGHT, or LEAST-MOST for random sides in that range")
    :argname("SIZE"):convert(parse_size)
  options.add_row(parser, { "quality", "whole", min = 1, max = 100, help = "JPEG quality (default 90)" })
  options.add_row(parser, { "seed", "whole", min = 0, max = 2 ^ 53, help = "seed of the images and sizes (default 0)" })
  options.add(parser, { "quiet" })
end

-- Mixes the bits of x (Steele and others, SplitMix64, 2014).
local function mix(x)
  x = (x ~ x >> 30) * 0xbf58476d1ce4e5b9
  x = (x ~ x >> 27) * 0x94d049bb133111eb
  return x ~ x >> 31
end

-- Returns a function (split, number) -> width, height.
local function sizes(size, seed)
  if not size.range then return function() return size[1], size[2] end end
  local span = size[2] - size[1] + 1
  return function(split, number)
    local bits = mix(mix(seed + (split == "test" and 1 << 62 or 0)) + number * 0x9e3779b97f4a7c15)
    return size[1] + (bits & 0xffffff) % span, size[1] + (bits >> 24 & 0xffffff) % span
  end
end

-- The arguments, with defaults where the command line gives nothing.
local function complete(args)
  local t = { classes = args.layout == "cifar100" and 100 or 10, quality = 90, seed = 0, layout = "cifar10", size = { 64, 64 },
    train = 5000, test = 1000 }
  for name, value in pairs(args) do t[name] = value end
  t.out = t.out:gsub("(.)/+$", "%1")
  for _, name in ipairs { "classes", "size", "quality" } do
    if layouts.folders[t.layout] and args[name] then
      misuse.usage("--%s: %s has none to choose, --layout folder and packed have", name, t.layout)
    end
  end
  if t.train < t.classes then misuse.usage("--train: %d, must be at least one for each of %d classes", t.train, t.classes) end
  return t
end

-- Locks OUT for this process; returns the lock, to be closed.
local function take(out)
  folder.make_above(out)
  local held = core.lock(out .. ".lock") or misuse.usage("OUT: %s: another process is writing it", out)
  if not lfs.attributes(out, "mode") then return held end
  os.remove(out .. ".lock")
  misuse.usage("OUT: %s is there already", out)
end

-- Writes both splits; false when interrupted.
local function write(writer, args, display)
  for _, split in ipairs { "train", "test" } do
    for number = 0, args[split] - 1 do
      if core.interrupted() then return false end
      writer.add(split, number % args.classes, number)
      display:note_seldom(function() return ("%s: %d of %d images"):format(split, number + 1, args[split]) end)
    end
  end
  writer.finish()
  return true
end

function M.run(args)
  args = complete(args)
  local _ <close> = take(args.out)
  local temporary = args.out .. ".tmp"
  local display = progress.create { bar = core.isatty(1) and not args.quiet, width = core.terminal_width(1), lines = true }
  folder.remove(temporary) -- an earlier attempt may have left it
  core.catch_interrupt()
  local ok, result = pcall(function()
    local inside = layouts.folders[args.layout]
    local writer = layouts.by_name[args.layout](inside and temporary .. "/" .. inside or temporary, {
      classes = args.classes, seed = args.seed, quality = args.quality, size = sizes(args.size, args.seed),
    })
    if not write(writer, args, display) then return false end
    core.rename(temporary, args.out)
    os.remove(args.out .. ".lock")
    return true
  end)
  core.catch_interrupt(false)
  display:clear()
  if not ok or not result then folder.remove(temporary) end
  if not ok then error(result, 0) end
  if not result then
    io.stderr:write("mptl data synthesize: interrupted, nothing was written\n")
    return 130
  end
  display:line("wrote %s: %d training and %d test images of %d classes", args.out, args.train, args.test, args.classes)
  return 0
end

return M
