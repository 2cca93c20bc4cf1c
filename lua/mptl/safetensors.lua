--- The safetensors file format (huggingface/safetensors): 8 bytes of header length (little-endian), a JSON header
-- {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string: string}}, padded with spaces to 8 bytes,
-- then the data, without gaps.
local core = require "mptl.core"
local json = require "mptl.json"
local misuse = require "mptl.misuse"

local M = {}

local element_size = {
  F64 = 8, F32 = 4, F16 = 2, BF16 = 2, F8_E4M3 = 1, F8_E5M2 = 1, I64 = 8, I32 = 4, I16 = 2, I8 = 1, U64 = 8, U32 = 4, U16 = 2,
  U8 = 1, BOOL = 1,
}

-- A header longer than this is not believed; the reference implementation has the same limit.
local longest_header = 100000000

local function size_of(entry)
  local size = element_size[entry.dtype]
  for _, d in ipairs(entry.shape) do size = size * d end
  return size
end

--- Writes a file, replacing the old one at once or not at all.
-- @param path the file
-- @param tensors list of {name = , tensor = Tensor}, or {name = , dtype = , shape = {...}, bytes = string}
-- @param metadata table of strings
function M.write(path, tensors, metadata)
  local header, order, chunks, offset = {}, { "__metadata__" }, { "" }, 0
  if metadata and next(metadata) then header.__metadata__ = json.object(misuse.names(metadata), metadata) end
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
  end
  local text = json.encode(json.object(order, header))
  text = text .. (" "):rep(-#text % 8)
  chunks[1] = string.pack("<I8", #text) .. text
  core.write_file(path, chunks)
end

local function check_entry(path, name, entry)
  local function bad(what) error(("%s: tensor %s: %s"):format(path, name, what), 0) end
  if type(entry) ~= "table" then bad "its description is not an object" end
  if not element_size[entry.dtype] then bad(("unknown dtype %s"):format(tostring(entry.dtype))) end
  if type(entry.shape) ~= "table" or type(entry.data_offsets) ~= "table" then bad "has no shape or no data_offsets" end
  for _, d in ipairs(entry.shape) do
    if math.type(d) ~= "integer" or d < 0 then bad(("shape has the size %s"):format(tostring(d))) end
  end
  local first, last = entry.data_offsets[1], entry.data_offsets[2]
  if math.type(first) ~= "integer" or math.type(last) ~= "integer" or last - first ~= size_of(entry) then
    bad(("data_offsets %s to %s do not hold its %d bytes"):format(tostring(first), tostring(last), size_of(entry)))
  end
end

--- Reads and checks the header of a file.
-- @param path the file
-- @return {tensors = {name = {dtype, shape, offset (bytes in the file), size}}, names = list in the order of the data,
-- metadata = table of strings, path}
function M.open(path)
  local file, reason = io.open(path, "rb")
  if not file then error(("cannot read %s"):format(reason), 0) end
  local function bad(what, ...)
    file:close()
    error(("%s: not a safetensors file, or damaged: %s"):format(path, what:format(...)), 0)
  end
  local start, size = file:read(8), file:seek "end"
  if not start then
    file:close()
    error(("cannot read %s: Is a directory, or empty"):format(path), 0)
  end
  if #start < 8 then bad("it has %d bytes", #start) end
  local length = string.unpack("<I8", start)
  if length < 2 or length > longest_header then bad("a header of %u bytes", length) end
  if 8 + length > size then bad("a header of %d bytes in a file of %d", length, size) end
  file:seek("set", 8)
  local header, mistake = json.decode(file:read(length))
  if type(header) ~= "table" then bad("its header is no JSON object: %s", mistake or type(header)) end
  local metadata = header.__metadata__ or {}
  if type(metadata) ~= "table" then bad "__metadata__ is no object" end
  header.__metadata__ = nil
  file:close()

  local names = {}
  for name, entry in pairs(header) do
    check_entry(path, name, entry)
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    local x, y = header[a].data_offsets, header[b].data_offsets
    if x[1] ~= y[1] then return x[1] < y[1] end
    if x[2] ~= y[2] then return x[2] < y[2] end
    return a < b
  end)
  local tensors, expected = {}, 0
  for _, name in ipairs(names) do
    local entry = header[name]
    local first, last = entry.data_offsets[1], entry.data_offsets[2]
    if first ~= expected then
      error(("%s: tensor %s begins at byte %d of the data, expected %d"):format(path, name, first, expected), 0)
    end
    expected = last
    tensors[name] = { dtype = entry.dtype, shape = entry.shape, offset = 8 + length + first, size = last - first }
  end
  if 8 + length + expected ~= size then
    error(("%s: %s: the header promises %d bytes, the file has %d"):format(path,
      8 + length + expected > size and "truncated" or "damaged", 8 + length + expected, size), 0)
  end
  return { path = path, tensors = tensors, names = names, metadata = metadata }
end

--- Reads a binary32 tensor.
-- @param file what M.open returned
-- @param name of the tensor
-- @param tensor to be filled, of as many elements
function M.read(file, name, tensor)
  return core.read_tensor(file.path, file.tensors[name].offset, tensor)
end

return M
