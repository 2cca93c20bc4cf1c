--- mptl data check: counts, sizes and statistics of a data set, and what is wrong with it.
local check = require "mptl.dataset.check"
local core = require "mptl.core"
local json = require "mptl.json"
local options = require "mptl.options"
local progress = require "mptl.progress"
local threads = require "mptl.threads"

local M = {
  name = "check",
  summary = "examine every image of a data set: counts, sizes, mean and deviation, what is wrong",
}

local most_classes = 20 -- list the counts of more classes only with --classes

function M.configure(parser)
  parser:argument("path", "a directory of CIFAR's binary files, a folder of images, or a packed file"):argname("PATH")
  parser:flag("--classes", "list the counts of all classes, also where there are more than " .. most_classes)
  options.add(parser, { "threads", "quiet", "json" })
end

-- "32 x 32 pixels", or the smallest and largest size.
local function sizes(t)
  if #t.min == 0 then return "no size" end
  local least, most = ("%d x %d"):format(table.unpack(t.min)), ("%d x %d"):format(table.unpack(t.max))
  return least == most and least .. " pixels" or ("%s to %s pixels"):format(least, most)
end

local function class_sizes(counts)
  local least, most = math.huge, 0
  for _, n in ipairs(counts) do least, most = math.min(least, n), math.max(most, n) end
  return least == most and ("%d a class"):format(least) or ("%d to %d a class"):format(least, most)
end

local function class_lines(out, t)
  local width = 0
  for _, name in ipairs(t.classes) do width = math.max(width, #name) end
  for c, name in ipairs(t.classes) do
    local counts = {}
    for _, split in ipairs { "train", "test" } do
      counts[#counts + 1] = ("%8s"):format(t[split] ~= json.null and t[split].counts[c] or "-")
    end
    out("  %-" .. width .. "s %s", name, table.concat(counts, " "))
  end
end

local function text(t, title, all_classes)
  local lines = {}
  local function out(format, ...) lines[#lines + 1] = format:format(...) end
  out("%s: %s%s", t.path, title, #t.classes > 0 and (", %d classes"):format(#t.classes) or "")
  for _, split in ipairs { "train", "test" } do
    local s = t[split]
    if s ~= json.null then
      out("%-5s %d images, %s, %s%s%s", split, s.images, sizes(s), class_sizes(s.counts),
        s.bad > 0 and ("; %d cannot be read"):format(s.bad) or "",
        s.warned > 0 and ("; %d with harmless mistakes in their JPEG data"):format(s.warned) or "")
    end
  end
  if #t.mean > 0 then
    out("mean  %.4f %.4f %.4f of the training set's red, green and blue, in units of the full range", table.unpack(t.mean))
    out("std   %.4f %.4f %.4f", table.unpack(t.std))
  end
  if all_classes or #t.classes <= most_classes then class_lines(out, t) end
  local d = t.duplicates
  if d.images > 0 then
    out("%d images are the same as earlier ones, %d of the test set as ones of the training set", d.images, d.across)
  end
  for _, problem in ipairs(t.problems) do out("wrong: %s", problem) end
  out(#t.problems == 0 and "nothing is wrong" or #t.problems == 1 and "1 thing is wrong" or "%d things are wrong", #t.problems)
  return table.concat(lines, "\n") .. "\n"
end

function M.run(args)
  threads.set(args.threads)
  local display = progress.create { bar = core.isatty(2) and not args.quiet, width = core.terminal_width(2), out = io.stderr }
  core.catch_interrupt()
  local t, title = check.survey(args.path, function(split, done, of)
    display:note_seldom(function() return ("%s: %d of %d images"):format(split, done, of) end)
  end)
  core.catch_interrupt(false)
  display:clear()
  if not t then
    io.stderr:write("mptl data check: interrupted\n")
    return 130
  end
  io.stdout:write(args.json and json.encode(t) .. "\n" or text(t, title, args.classes))
  return #t.problems == 0 and 0 or 1
end

return M
