--- Small CIFAR files in a temporary directory, for the specs.
local core = require "mptl.core"
local lfs = require "lfs"

local M = {}

--- Makes an empty directory; remove it with `remove`.
function M.directory()
  local path = os.tmpname()
  os.remove(path)
  assert(lfs.mkdir(path))
  return path
end

--- Removes a directory and everything in it.
function M.remove(path)
  for name in lfs.dir(path) do
    local inside = path .. "/" .. name
    if name ~= "." and name ~= ".." then
      if lfs.symlinkattributes(inside, "mode") == "directory" then M.remove(inside) else os.remove(inside) end
    end
  end
  lfs.rmdir(path)
end

--- Writes a file, and the directory it is in.
function M.write(path, ...)
  for at in path:gmatch("()/") do lfs.mkdir(path:sub(1, at - 1)) end
  local file = assert(io.open(path, "wb"))
  assert(file:write(...))
  file:close()
end

--- Decodes bytes that are written in hexadecimal.
function M.bytes(hexadecimal)
  return (hexadecimal:gsub("%x%x", function(two) return string.char(tonumber(two, 16)) end))
end

--- An entry of a CIFAR file: the label bytes, then 3072 bytes of an image made by pixel(channel, y, x), all from 0.
function M.entry(labels, pixel)
  local bytes = { string.char(table.unpack(labels)) }
  for c = 0, 2 do
    for y = 0, 31 do
      for x = 0, 31 do bytes[#bytes + 1] = string.char(pixel(c, y, x)) end
    end
  end
  return table.concat(bytes)
end

--- An entry whose image has the same byte everywhere.
function M.flat(label, value)
  return string.char(label) .. string.char(value):rep(3072)
end

--- A JPEG image of a single colour, 0 .. 255 for each channel.
function M.jpeg(colour, width, height)
  local values = {}
  for i = 0, width * height - 1 do table.move(colour, 1, 3, 3 * i + 1, values) end
  return core.jpeg_encode(core.tensor({ height, width, 3 }, values), 95)
end

--- All bytes of a file.
function M.read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

return M
