--- mptl data import: packs a folder or an archive of JPEG images into one file.
local core = require "mptl.core"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local options = require "mptl.options"
local origin = require "mptl.dataset.origin"
local progress = require "mptl.progress"
local threads = require "mptl.threads"

local M = { name = "import", summary = "pack a folder or archive of JPEG images into one file" }

-- Images are decoded together until there are this many, or this many bytes of them.
local batch_images, batch_bytes = 1024, 1 << 26

function M.configure(parser)
  parser:argument("source", "a folder, or a tar (.gz, .bz2, .xz, .zst too) or zip file, with train/CLASS/*.jpg and test/ or "
    .. "val/, or CLASS/*.jpg, or CLASS.tar"):argname("SOURCE")
  parser:argument("out", "the packed data set to write"):argname("OUT")
  options.add_row(parser, { "test", "string", arg = "SOURCE",
    help = "another folder or archive, with the test set" })
  options.add_row(parser, { "test_labels", "string", arg = "FILE",
    help = "classes of the images of --test: lines with a file name and a class" })
  options.add_row(parser, { "on_bad_image", "choice", choices = { "stop", "skip" },
    help = "what to do with an image that cannot be decoded (default stop)" })
  parser:flag("--force", "replace OUT if it is there")
  options.add(parser, { "threads", "quiet" })
end

local Import = {}
Import.__index = Import

-- Leaves an image out, or raises an error when --on-bad-image is stop.
function Import:reject(path, why)
  path = path:gsub("%c", "?")
  if self.on_bad ~= "skip" then error(("%s: %s; --on-bad-image skip leaves such images out"):format(path, why), 0) end
  self.progress:clear()
  io.stderr:write(("mptl data import: left out %s: %s\n"):format(path, why))
  self.skipped = self.skipped + 1
end

-- Packs the images of the batch that can be decoded.
function Import:flush()
  local batch = self.batch
  self.batch, self.bytes = { encoded = {} }, 0
  if #batch == 0 then return end
  local why = {}
  local found = core.survey_bytes(batch.encoded)
  self.warned = self.warned + found.warned
  for _, bad in ipairs(found.bad) do why[bad[1]] = bad[2] end
  for i, image in ipairs(batch) do
    if why[i] then
      self:reject(image.path, why[i])
    else
      self.packer:add(image.split, image.class, image.file, batch.encoded[i])
      self.counts[image.split] = self.counts[image.split] + 1
    end
  end
end

function Import:add(path, kind, read, place)
  local split, class, file, why = origin.place(path, place)
  if not class or kind ~= "file" then
    self:reject(path, why or "a link or device")
    return
  end
  local named = split ~= nil -- an origin must name the split of all its images, or of none
  if self.named == nil then self.named = named end
  if self.named ~= named then
    error(("%s: is %s train/, test/ or val/, other images are %s"):format(path, named and "in" or "not in",
      named and "not" or "in one"), 0)
  end
  local bytes = read()
  local n = #self.batch + 1
  self.batch[n] = { path = path, split = split or "train", class = class, file = file }
  self.batch.encoded[n] = bytes
  self.bytes = self.bytes + #bytes
  if n >= batch_images or self.bytes >= batch_bytes then self:flush() end
end

-- Counts a file or folder whose name begins with a dot, once: archives name a folder with each of
-- its files.
function Import:skip(path)
  if self.dotted[path] then return end
  self.dotted[path] = true
  self.n_dotted = self.n_dotted + 1
  self.first_dotted = self.first_dotted or path:gsub("%c", "?")
end

-- Takes all images of an origin; false when interrupted.
function Import:take(path, place)
  local next_item, done = origin.open(path)
  self.named = nil
  for inside, kind, read in next_item do
    if core.interrupted() then return false end
    local hidden = origin.hidden(inside)
    if hidden then
      self:skip(path .. "/" .. hidden)
    elseif origin.is_image(inside) then
      self:add(inside, kind, read, place)
    else
      self.others = self.others + 1
    end
    self.progress:note_seldom(function()
      return ("%s: %d%%, %d images"):format(path, 100 * done() // 1, self.counts.train + self.counts.test)
    end)
  end
  self:flush()
  return not core.interrupted()
end

local function check_arguments(args)
  local mode = lfs.attributes(args.out, "mode")
  if mode and mode ~= "file" then misuse.usage("OUT: %s is a %s, must be a file to write", args.out, mode) end
  if mode and not args.force then misuse.usage("OUT: %s is there already; --force replaces it", args.out) end
  if args.test_labels and not args.test then misuse.usage("--test-labels %s: goes with --test SOURCE", args.test_labels) end
end

local function run(args)
  local labels = args.test_labels and origin.labels(args.test_labels)
  local packer <close> = core.packer(args.out)
  local import = setmetatable({
    packer = packer, on_bad = args.on_bad_image, batch = { encoded = {} }, bytes = 0, counts = { train = 0, test = 0 },
    skipped = 0, others = 0, warned = 0, dotted = {}, n_dotted = 0,
    progress = progress.create { bar = core.isatty(1) and not args.quiet, width = core.terminal_width(1), lines = true },
  }, Import)
  local from = core.time()
  local whole = import:take(args.source, { split = args.test and "train" or nil })
    and (not args.test or import:take(args.test, { split = "test", labels = labels }))
  import.progress:clear()
  if not whole then return nil end
  packer:finish()
  return import, core.time() - from
end

function M.run(args)
  check_arguments(args)
  threads.set(args.threads)
  core.catch_interrupt()
  local import, seconds = run(args)
  core.catch_interrupt(false)
  if not import then
    io.stderr:write("mptl data import: interrupted, nothing was written\n")
    return 130
  end
  local opened = core.images_packed { path = args.out }
  import.progress:line("wrote %s: %d training and %d test images of %d classes, %.1f MB, in %.1f s", args.out,
    import.counts.train, import.counts.test, opened:classes(), lfs.attributes(args.out, "size") / 1e6, seconds)
  if import.skipped > 0 then
    import.progress:line("%d image%s left out", import.skipped, import.skipped == 1 and " was" or "s were")
  end
  if import.warned > 0 then
    import.progress:line("taken in spite of harmless mistakes in their JPEG data: %d",
      import.warned)
  end
  if import.n_dotted > 0 then
    import.progress:line("skipped, as their names begin with a dot: %d, the first of them %s",
      import.n_dotted, import.first_dotted)
  end
  if import.others > 0 then
    import.progress:line("skipped, as their names do not end in .jpg or .jpeg: %d", import.others)
  end
  return 0
end

return M
