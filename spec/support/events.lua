--- Reads TensorBoard event files, without using the code that writes them.
local core = require "mptl.core"
local lfs = require "lfs"

local M = {}

--- The fields of a protobuf message: list of {number, value}; delimited values are strings.
function M.fields(bytes)
  local list, at = {}, 1
  local function varint()
    local n, shift = 0, 0
    repeat
      local byte = bytes:byte(at)
      n, shift, at = n | (byte & 127) << shift, shift + 7, at + 1
    until byte < 128
    return n
  end
  while at <= #bytes do
    local key = varint()
    local value
    if key & 7 == 0 then
      value = varint()
    elseif key & 7 == 2 then
      local n = varint()
      value, at = bytes:sub(at, at + n - 1), at + n
    else
      value, at = string.unpack(key & 7 == 1 and "<d" or "<f", bytes, at)
    end
    list[#list + 1] = { key >> 3, value }
  end
  return list
end

local function masked(s)
  local c = core.crc32c(s)
  return ((c >> 15 | c << 17) + 0xa282ead8) & 0xffffffff
end

--- The events of a file, as their fields; raises an error unless all are complete.
function M.read(path)
  local f <close> = assert(io.open(path, "rb"))
  local text, at, list = f:read "a", 1, {}
  while at <= #text do
    local length, crc = string.unpack("<I8I4", text, at)
    local event = text:sub(at + 12, at + 11 + length)
    assert(masked(text:sub(at, at + 7)) == crc and masked(event) == string.unpack("<I4", text, at + 12 + length), path)
    list[#list + 1] = M.fields(event)
    at = at + 16 + length
  end
  return list
end

--- The scalars of all event files of a directory, file after file: list of {tag =, step =, value =}.
function M.points(dir)
  local names, list = {}, {}
  for name in lfs.dir(dir) do names[#names + 1] = name:match "^events%.out%..*%.mptl%..*" end
  table.sort(names)
  for _, name in ipairs(names) do
    for _, event in ipairs(M.read(dir .. "/" .. name)) do
      local step
      for _, field in ipairs(event) do
        if field[1] == 2 then step = field[2] end
        for _, value in ipairs(field[1] == 5 and M.fields(field[2]) or {}) do
          local scalar = M.fields(value[2])
          list[#list + 1] = { tag = scalar[1][2], step = step, value = scalar[2][2] }
        end
      end
    end
  end
  return list
end

return M
