--- Scalars as a TensorBoard event file: records (TFRecord) of Event messages in protobuf's wire format.
--   record: length (8 bytes), masked CRC-32C of the length, Event, masked CRC-32C of the Event
--   Event: wall_time = 1 (double), step = 2 (varint), file_version = 3 (string) or
--     summary = 5 { value = 1 { tag = 1 (string), simple_value = 2 (float) } }
-- Source: tensorflow/core/util/event.proto, summary.proto, lib/io/record_writer.h.
local lfs = require "lfs"

local M = {}

local Writer = {}
Writer.__index = Writer

-- CRC-32C (Castagnoli), reflected.
local crc_table = {}
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do c = (c >> 1) ~ (0x82f63b78 & -(c & 1)) end
  crc_table[i] = c
end

local function crc32c(bytes)
  local c = 0xffffffff
  for i = 1, #bytes do c = crc_table[(c ~ bytes:byte(i)) & 0xff] ~ (c >> 8) end
  return c ~ 0xffffffff
end

-- As TFRecord stores it: rotated and offset, so that a checksum of data holding checksums stays good.
local function masked_crc(bytes)
  local c = crc32c(bytes)
  return (((c >> 15) | (c << 17)) + 0xa282ead8) & 0xffffffff
end

local function varint(n)
  local bytes = {}
  while n > 127 do
    bytes[#bytes + 1] = string.char(n & 127 | 128)
    n = n >> 7
  end
  bytes[#bytes + 1] = string.char(n)
  return table.concat(bytes)
end

-- Fields by wire type: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
local function delimited(field, bytes)
  return string.char(field << 3 | 2) .. varint(#bytes) .. bytes
end

local function write(self, event)
  local length = string.pack("<I8", #event)
  self.file:write(length, string.pack("<I4", masked_crc(length)), event, string.pack("<I4", masked_crc(event)))
end

local function wall_time(time)
  return string.pack("<Bd", 1 << 3 | 1, time)
end

--- Opens a new event file in a directory.
-- @param dir the directory
-- @return the writer; or nil and a message
function M.open(dir)
  local time = os.time()
  local prefix, n = ("%s/events.out.tfevents.%010d.mptl."):format(dir, time), 0
  while lfs.attributes(prefix .. n, "mode") do n = n + 1 end
  local path = prefix .. n
  local file, message = io.open(path, "wb")
  if not file then return nil, message end
  local self = setmetatable({ file = file, path = path }, Writer)
  write(self, wall_time(time) .. delimited(3, "brain.Event:2"))
  file:flush()
  return self
end

--- Adds scalars at a step; those that are nil are left out.
-- @param step whole number
-- @param scalars list of {tag, value}
function Writer:add(step, scalars)
  local values = {}
  for _, s in ipairs(scalars) do
    if s[2] then values[#values + 1] = delimited(1, delimited(1, s[1]) .. string.pack("<Bf", 2 << 3 | 5, s[2])) end
  end
  write(self, wall_time(os.time()) .. string.char(2 << 3) .. varint(step) .. delimited(5, table.concat(values)))
  self.file:flush()
end

function Writer:close()
  self.file:close()
end

M.crc32c = crc32c

return M
