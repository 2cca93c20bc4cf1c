--- mptl data fetch: downloads a data set to the folder where the other commands look for it.
local core = require "mptl.core"
local data = require "mptl.data"
local fetch = require "mptl.dataset.fetch"
local misuse = require "mptl.misuse"
local options = require "mptl.options"
local progress = require "mptl.progress"

local M = {
  name = "fetch",
  summary = "download a data set: " .. table.concat(misuse.names(fetch.origins), ", "),
}

-- Data sets that cannot be downloaded, and what to do instead.
local elsewhere = {
  imagenet = "needs registration: get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar at "
    .. "https://image-net.org/download-images.php, then see mptl data import --help and docs/data.md",
}

function M.configure(parser)
  local names = misuse.names(fetch.origins)
  parser:argument("name", "data set: " .. table.concat(names, ", ")):argname("NAME"):convert(function(text)
    if fetch.origins[text] then return text end
    if elsewhere[text] then return nil, ("%s: %s"):format(text, elsewhere[text]) end
    return nil, ("NAME: %s, accepted are %s%s"):format(text, table.concat(names, ", "), misuse.suggest(text, names))
  end)
  options.add_row(parser, { "data", "string", arg = "DIR",
    help = "folder to write to (default: $MPTL_DATA, $XDG_DATA_HOME/mptl)" })
  options.add_row(parser, { "url", "string", arg = "URL",
    help = "another address of the same archive" })
  for _, sum in ipairs { { "--sha256", "SHA-256", 64 }, { "--md5", "MD5", 32 } } do
    local flag, title, digits = table.unpack(sum)
    local help = ("the %s sum of the archive, when it is another one"):format(title)
    parser:option(flag, help):argname("SUM"):convert(function(text)
      if text:match("^" .. ("%x"):rep(digits) .. "$") then return text:lower() end
      return nil, ("%s: %s, accepted are %d hexadecimal digits"):format(flag, text, digits)
    end)
  end
  options.add(parser, { "quiet" })
end

function M.run(args)
  local dir = data.places(args.data)[1]
  if not dir then misuse.usage("no place for the data: give --data DIR; MPTL_DATA, XDG_DATA_HOME and HOME are not set") end
  local origin = fetch.origins[args.name]
  local present = fetch.present(origin, dir)
  if present then
    io.stdout:write(("%s is there: %s\n"):format(args.name, present))
    return 0
  end
  local display = progress.create { bar = core.isatty(1) and not args.quiet, width = core.terminal_width(1) }
  core.catch_interrupt()
  local ok, path = pcall(fetch.fetch, args.name, dir, {
    url = args.url, md5 = args.md5, sha256 = args.sha256,
    note = function(bytes)
      display:note_seldom(function()
        return ("%s: %.1f of about %.0f MB, to %s"):format(args.name, bytes / 1e6, origin.size / 1e6, dir)
      end)
    end,
  })
  core.catch_interrupt(false)
  display:clear()
  if not ok then error(path, 0) end
  if not path then
    io.stderr:write("mptl data fetch: interrupted; the next time goes on from here\n")
    return 130
  end
  io.stdout:write(("%s: %s\n"):format(args.name, path))
  return 0
end

return M
