--- The safetensors file format (huggingface/safetensors): 8 bytes of header length (little-endian),
-- a JSON header {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string:
-- string}}, padded with spaces to 8 bytes, then the data, without gaps. The engine reads headers
-- (mptl/safetensors.h).
--
-- A file may be sealed. Then its metadata has the text "mptl.crc32c": the CRC-32C of the header,
-- with zeros in its own place, and of every tensor's bytes in the order of the data, in eight
-- hexadecimal digits each. Other readers ignore it.
local core = require "mptl.core"
local json = require "mptl.json"
local misuse = require "mptl.misuse"

local M = {}

-- Bytes of an element, by type.
local element_size = {
  F64 = 8, F32 = 4, F16 = 2, BF16 = 2, F8_E4M3 = 1, F8_E5M2 = 1, I64 = 8, I32 = 4, I16 = 2, I8 = 1, U64 = 8, U32 = 4, U16 = 2,
  U8 = 1, BOOL = 1,
}

local seal = "mptl.crc32c"
local unsealed = ("0"):rep(8)

local function size_of(entry)
  local size = element_size[entry.dtype]
  for _, d in ipairs(entry.shape) do size = size * d end
  return size
end

-- Puts the header's checksum in the place of its zeros. That place is found by its name in quotes:
-- within texts quotes are escaped, so it occurs once.
local function sealed(text)
  local _, last = text:find(('"%s":"'):format(seal), 1, true)
  return text:sub(1, last) .. ("%08x"):format(core.crc32c(text)) .. text:sub(last + 9)
end

--- Writes a file, replacing the old one at once or not at all.
-- @param path the file
-- @param tensors list of {name =, tensor = Tensor}, or {name =, dtype =, shape = {...}, bytes =
--   string}
-- @param metadata table of strings
-- @param with_checksums whether to seal the file
function M.write(path, tensors, metadata, with_checksums)
  local header, order, chunks, offset, sums = {}, { "__metadata__" }, { "" }, 0, { unsealed }
  for i, t in ipairs(tensors) do
    local entry = json.object({ "dtype", "shape", "data_offsets" }, {
      dtype = t.tensor and "F32" or t.dtype,
      shape = json.array(t.tensor and t.tensor:size() or t.shape),
    })
    local size = size_of(entry)
    entry.data_offsets = { offset, offset + size }
    offset = offset + size
    header[t.name] = entry
    order[i + 1] = t.name
    chunks[i + 1] = t.tensor or t.bytes
    sums[i + 1] = with_checksums and ("%08x"):format(core.crc32c(chunks[i + 1])) or nil
  end
  local texts = {}
  for key, text in pairs(metadata or {}) do texts[key] = text end
  if with_checksums then texts[seal] = table.concat(sums) end
  if next(texts) then header.__metadata__ = json.object(misuse.names(texts), texts) end
  local text = json.encode(json.object(order, header))
  text = text .. (" "):rep(-#text % 8)
  if with_checksums then text = sealed(text) end
  chunks[1] = string.pack("<I8", #text) .. text
  core.write_file(path, chunks)
end

-- Compares a header with its checksum. Returns the checksums of the tensors, in the order of the
-- data.
local function check_seal(file, header)
  local sums = file.metadata[seal]
  if #sums ~= 8 * (#file.names + 1) or sums:find "[^%da-f]" then
    error(("%s: damaged: %s holds no checksums of the header and its %d tensors"):format(file.path, seal, #file.names), 0)
  end
  local _, last = header:find(('"%s":"'):format(seal), 1, true)
  local found = last and ("%08x"):format(core.crc32c(header:sub(1, last) .. unsealed .. header:sub(last + 9)))
  if found ~= sums:sub(1, 8) then
    error(("%s: damaged: the header's checksum is %s, that of its bytes %s"):format(file.path, sums:sub(1, 8),
      found or "none"), 0)
  end
  local list = {}
  for i in ipairs(file.names) do list[i] = sums:sub(8 * i + 1, 8 * i + 8) end
  return list
end

--- Reads and checks the header of a file. The file stays open, so that later reads do not depend on
-- the path.
-- @param path the file
-- @return {tensors = {name = {dtype, shape, offset (bytes in the file), size}}, names = list in the
--   order of the data, metadata = table of strings, path, stream, sums = checksums of a sealed
--   file, for M.check}
function M.open(path)
  local stream, message = core.open(path)
  if not stream then error("cannot read " .. message, 0) end
  local file, header = core.safetensors(stream, path)
  file.stream = stream
  if file.metadata[seal] then file.sums = check_seal(file, header) end
  return file
end

--- Compares all tensors of a sealed file with their checksums.
-- @param file the result of M.open
function M.check(file)
  for i, sum in ipairs(file.sums or {}) do
    local t = file.tensors[file.names[i]]
    local found = ("%08x"):format(core.crc32c_in(file.stream, file.path, t.offset, t.size))
    if found ~= sum then
      error(("%s: damaged: tensor %s: its checksum is %s, that of its bytes %s"):format(file.path, file.names[i], sum, found), 0)
    end
  end
end

--- Reads a binary32 tensor.
-- @param file the result of M.open
-- @param name name of the tensor
-- @param tensor the Tensor to fill, with as many elements
function M.read(file, name, tensor)
  return core.read_tensor(file.stream, file.path, file.tensors[name].offset, tensor)
end

return M
