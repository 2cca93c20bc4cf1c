local core = require "mptl.core"
local safetensors = require "mptl.safetensors"

describe("safetensors", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function slurp()
    local f = assert(io.open(path, "rb"))
    local text = f:read "a"
    f:close()
    return text
  end

  local function spill(text)
    local f = assert(io.open(path, "wb"))
    f:write(text)
    f:close()
  end

  --- A file with this header text and data.
  local function make(header, data)
    spill(string.pack("<I8", #header) .. header .. (data or ""))
  end

  it("writes the format to the letter", function()
    safetensors.write(path, {
      { name = "b", tensor = core.tensor({ 1, 2 }, { 1, -2 }) },
      { name = "a", dtype = "I64", shape = {}, bytes = string.pack("<i8", 7) },
    }, { key = "value" })
    local header = '{"__metadata__":{"key":"value"},"b":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},'
      .. '"a":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}'
    header = header .. (" "):rep(-#header % 8)
    assert.equal(string.pack("<I8", #header) .. header .. string.pack("<ffi8", 1, -2, 7), slurp())
  end)

  it("reads back what it wrote", function()
    safetensors.write(path, {
      { name = "x", tensor = core.tensor({ 2 }, { 1, 2 }) },
      { name = "y", tensor = core.tensor({ 3 }, { 3, 4, 5 }) },
    })
    local file = safetensors.open(path)
    assert.same({ "x", "y" }, file.names)
    assert.same({ 3 }, file.tensors.y.shape)
    assert.same({ 3, 4, 5 }, safetensors.read(file, "y", core.tensor { 3 }):totable())
    assert.same({}, file.metadata)
  end)

  it("writes and reads a file without tensors", function()
    safetensors.write(path, {}, { a = "b" })
    assert.same({ a = "b" }, safetensors.open(path).metadata)
  end)

  describe("names the file and what is wrong with it:", function()
    local function fails(message)
      assert.has_error(function() safetensors.open(path) end, path .. ": " .. message)
    end

    it("missing", function()
      assert.has_error(function() safetensors.open(path .. ".no") end, "cannot read " .. path .. ".no: No such file or directory")
    end)

    it("a few bytes", function()
      spill "abc"
      fails "not a safetensors file, or damaged: it has 3 bytes"
    end)

    it("another kind of file", function()
      spill(("PK\3\4"):rep(10))
      assert.error_matches(function() safetensors.open(path) end, "not a safetensors file, or damaged: a header of %d+ bytes$")
    end)

    it("a header longer than the file", function()
      spill(string.pack("<I8", 100) .. "{}")
      fails "not a safetensors file, or damaged: a header of 100 bytes in a file of 10"
    end)

    it("a header that is no JSON", function()
      make '{"a": }'
      assert.error_matches(function() safetensors.open(path) end, "its header is no JSON object: .*byte")
    end)

    it("truncated data", function()
      safetensors.write(path, { { name = "x", tensor = core.tensor { 4 } } })
      local text = slurp()
      spill(text:sub(1, -3))
      fails(("truncated: the header promises %d bytes, the file has %d"):format(#text, #text - 2))
    end)

    it("data behind the last tensor", function()
      make('{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "ab")
      assert.error_matches(function() safetensors.open(path) end, "damaged: the header promises")
    end)

    it("tensors that overlap", function()
      make('{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', "abc")
      fails "tensor y begins at byte 1 of the data, expected 2"
    end)

    it("offsets that do not fit the shape", function()
      make('{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', "abcd")
      fails "tensor x: data_offsets 0 to 4 do not hold its 8 bytes"
    end)

    it("an unknown type", function()
      make('{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', "abcd")
      fails "tensor x: unknown dtype F99"
    end)
  end)
end)
