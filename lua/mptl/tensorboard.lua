--- Scalars as a TensorBoard event file: records (TFRecord) of Event messages in protobuf's wire
-- format.
--   record: length (8 bytes), masked CRC-32C of the length, Event, masked CRC-32C of the Event
--   Event: wall_time = 1 (double), step = 2 (varint), file_version = 3 (string) or
--     summary = 5 { value = 1 { tag = 1 (string), simple_value = 2 (float) } }
-- Source: tensorflow/core/util/event.proto, summary.proto, lib/io/record_writer.h.
local core = require "mptl.core"
local lfs = require "lfs"

local M = {}

local Writer = {}
Writer.__index = Writer

-- TFRecord rotates and offsets a checksum, so that checksums of data with checksums in it stay
-- good.
local function masked_crc(bytes)
  local c = core.crc32c(bytes)
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

-- A field with its length. Wire types: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes.
local function delimited(field, bytes)
  return string.char(field << 3 | 2) .. varint(#bytes) .. bytes
end

local function write(self, event)
  local length = string.pack("<I8", #event)
  self.file:append(table.concat { length, string.pack("<I4", masked_crc(length)), event, string.pack("<I4", masked_crc(event)) })
end

local function wall_time(time)
  return string.pack("<Bd", 1 << 3 | 1, time)
end

-- The event in the record at a position of an event file's text, and the record's last byte; nil
-- when there is no complete record.
local function next_event(text, at)
  if #text < at + 11 then return nil end
  local length, crc = text:sub(at, at + 7), string.unpack("<I4", text, at + 8)
  local last = at + 11 + string.unpack("<i8", length) -- of the event
  if crc ~= masked_crc(length) or last < at + 11 or last > #text - 4 then return nil end
  local event = text:sub(at + 12, last)
  if string.unpack("<I4", text, last + 1) ~= masked_crc(event) then return nil end
  return event, last + 4
end

-- The step and the first tag of an event from Writer:add; nil for other events.
local function place(event)
  local at = 10 -- behind the time
  local function number()
    local n, shift = 0, 0
    repeat
      local byte = event:byte(at)
      n, shift, at = n | (byte & 127) << shift, shift + 7, at + 1
    until byte < 128
    return n
  end
  if number() ~= 2 << 3 then return nil end
  local step = number()
  for _ = 1, 5 do number() end -- summary and its size, value and its size, tag
  local size = number()
  return step, event:sub(at, at + size - 1)
end

-- The parts of an event file's text to keep; whether they contain scalars, and whether they are the
-- whole text.
local function kept_parts(text, keep)
  local parts, scalars, at, first = {}, false, 1, 1
  while true do
    local event, last = next_event(text, at)
    local step, tag
    if event then step, tag = place(event) end
    local stays = event and (not step or keep(tag, step))
    if not stays then
      parts[#parts + 1] = text:sub(first, at - 1)
      first = event and last + 1 or #text + 1
    end
    if not event then return parts, scalars, #parts == 1 and at > #text end
    scalars = scalars or (stays and step ~= nil)
    at = last + 1
  end
end

local function remove(path)
  local ok, message = os.remove(path)
  if not ok then error(("cannot remove %s"):format(message), 0) end
end

--- Removes scalars from all event files in a run directory, and files that have none left. Removes
-- everything behind a damaged record, too: no reader gets past it.
-- @param dir the directory
-- @param keep function (tag, step) -> whether to keep a scalar. The scalars of one call of
--   Writer:add are kept or removed together, by the first one's tag
function M.cut(dir, keep)
  for name in lfs.dir(dir) do
    if name:find "^events%.out%.tfevents%.%d+%.mptl%.%d+$" then
      local path = ("%s/%s"):format(dir, name)
      local file <close>, message = core.open(path)
      local text
      if file then text, message = file:read "a" end
      if not text then error(("cannot read %s"):format(message), 0) end
      local parts, scalars, whole = kept_parts(text, keep)
      if not scalars then
        remove(path)
      elseif not whole then
        core.write_file(path, parts)
      end
    end
  end
end

--- Opens a new event file in a directory. This and the functions below raise "cannot write PATH:
-- why".
-- @param dir the directory
-- @return the writer
function M.open(dir)
  local time = os.time()
  local prefix, n = ("%s/events.out.tfevents.%010d.mptl."):format(dir, time), 0
  while lfs.attributes(prefix .. n, "mode") do n = n + 1 end
  local path = prefix .. n
  local self = setmetatable({ file = core.appender(path), path = path }, Writer)
  write(self, wall_time(time) .. delimited(3, "brain.Event:2"))
  return self
end

--- Adds scalars at a step; skips those that are nil.
-- @param step whole number
-- @param scalars list of {tag, value}
function Writer:add(step, scalars)
  local values = {}
  for _, s in ipairs(scalars) do
    if s[2] then values[#values + 1] = delimited(1, delimited(1, s[1]) .. string.pack("<Bf", 2 << 3 | 5, s[2])) end
  end
  if #values == 0 then return end
  write(self, wall_time(os.time()) .. string.char(2 << 3) .. varint(step) .. delimited(5, table.concat(values)))
end

--- Waits until all scalars are on the disk.
function Writer:sync()
  self.file:sync()
end

--- Closes the file, with all its scalars on the disk.
function Writer:close()
  self:sync()
  self.file:close()
end

return M
