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

  it("writes exactly the format", function()
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

    it("a header that is not JSON", function()
      make '{"a": }'
      assert.error_matches(function() safetensors.open(path) end, "tensor a: its description is not an object$")
      make '{"a"'
      fails "not a safetensors file, or damaged: its header: at byte 4: ends, expected :"
      make '[1]'
      fails "not a safetensors file, or damaged: its header: at byte 0: expected {, found ["
    end)

    it("truncated data", function()
      safetensors.write(path, { { name = "x", tensor = core.tensor { 4 } } })
      local text = slurp()
      spill(text:sub(1, -3))
      fails(("truncated: the header promises %d bytes, the file has %d"):format(#text, #text - 2))
    end)

    it("data after the last tensor", function()
      make('{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "ab")
      assert.error_matches(function() safetensors.open(path) end, "damaged: the header promises")
    end)

    it("tensors that overlap", function()
      make('{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', "abc")
      fails "tensor y: begins at byte 1 of the data, expected 2"
    end)

    it("offsets that do not fit the shape", function()
      make('{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', "abcd")
      fails "tensor x: data_offsets 0 to 4 do not hold its 8 bytes"
    end)

    it("an unknown type", function()
      make('{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', "abcd")
      fails "tensor x: dtype: unknown type F99"
    end)

    it("a shape whose size wraps", function()
      make '{"x":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
      fails "tensor x: shape: more than 2^64 elements"
      make '{"x":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}'
      fails "tensor x: shape: more than 2^64 bits"
      make('{"x":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}', "a")
      fails "tensor x: shape: 12 bits of F4 are no whole number of bytes"
    end)

    it("names that appear twice", function()
      local entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
      make(('{"x":%s,"y":%s,"\\u0078":%s}'):format(entry, entry, entry))
      fails "tensor x: appears twice"
      make '{"__metadata__":{"a":"1","b":"2","a":"3"}}'
      fails "__metadata__: a appears twice"
      make '{"x":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'
      fails "tensor x: has dtype twice"
    end)

    it("offsets that are not a pair", function()
      make '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}'
      fails "tensor x: data_offsets: at byte 50: expected ], found ,"
      make '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0]}}'
      fails "tensor x: data_offsets: at byte 48: expected ,, found ]"
    end)

    it("a pipe", function()
      os.remove(path)
      assert(os.execute("mkfifo " .. path))
      assert.has_error(function() safetensors.open(path) end, "cannot read " .. path .. ": a pipe, must be a regular file")
    end)
  end)

  -- What the format's own reader accepts and refuses, except for names that appear twice, which the format forbids.
  describe("reads headers strictly:", function()
    local empty = '"dtype":"U8","shape":[0],"data_offsets":[0,0]'
    local function is_taken(header, data)
      make(header, data)
      return (pcall(safetensors.open, path))
    end

    for _, header in ipairs {
      "{}", " { } ", '{"__metadata__":null}', '{"__metadata__":{}}', '{"x":{' .. empty .. '}}\n',
      '{"x":{' .. empty .. ',"more":[1,-2.5e3,{"a":null,"b":[true,false,"\\n"]}]}}',
      '{"x":{"data_offsets":[0,0],"shape":[0,18446744073709551615],"dtype":"I64"}}',
      '{"\\ud83d\\ude00":{' .. empty .. '}}', '{"":{' .. empty .. '}}', '{"a\\u0000b":{' .. empty .. '}}',
    } do
      it("takes " .. header, function() assert.is_true(is_taken(header)) end)
    end

    for _, header in ipairs {
      "", "[]", "null", "{},", "{} x", "// a\n{}", "{}\0", '{"x":{' .. empty .. "},}", '{"x":{' .. empty .. ',}}', "{'x':{}}",
      '{"x":null}', '{"x":{}}', '{"__metadata__":{"a":1}}', '{"__metadata__":[]}', '{"__metadata__":null,"__metadata__":null}',
      '{"x":{"dtype":"U8","shape":[0.0],"data_offsets":[0,0]}}', '{"x":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}',
      '{"x":{"dtype":"U8","shape":[00],"data_offsets":[0,0]}}', '{"x":{"dtype":"U8","shape":[0],"data_offsets":[0e0,0]}}',
      '{"x":{"dtype":"U8","shape":[18446744073709551616,0],"data_offsets":[0,0]}}',
      '{"x":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}', -- the product of the first two wraps
      '{"x":{"dtype":"u8","shape":[0],"data_offsets":[0,0]}}', '{"x":{"dtype":8,"shape":[0],"data_offsets":[0,0]}}',
      '{"x":{"dtype":"U8","shape":0,"data_offsets":[0,0]}}', '{"x\n":{' .. empty .. "}}", '{"\\ud83d":{' .. empty .. "}}",
      '{"\\ude00\\ud83d":{' .. empty .. "}}", '{"\\x":{' .. empty .. "}}", '{"\xff":{' .. empty .. "}}",
      '{"\xed\xa0\x80":{' .. empty .. "}}",
      '{"x":{' .. empty .. ',"more":' .. ("["):rep(200) .. ("]"):rep(200) .. "}}", '{"x":{' .. empty .. ',"more":1e999}}',
      '{"x":{' .. empty .. ',"more":.5}}', '{"x":{' .. empty .. ',"more":nul}}', '{"x":{' .. empty .. ',"more":[1 2]}}',
    } do
      it("refuses " .. header:sub(1, 70):gsub("[^ -~]", "?"), function() assert.is_false(is_taken(header)) end)
    end

    it("takes every type, and tensors in any order", function()
      local sizes = {
        BOOL = 8, F4 = 4, F6_E2M3 = 6, F6_E3M2 = 6, U8 = 8, I8 = 8, F8_E5M2 = 8, F8_E4M3 = 8, F8_E8M0 = 8, I16 = 16, U16 = 16,
        F16 = 16, BF16 = 16, I32 = 32, U32 = 32, F32 = 32, F64 = 64, I64 = 64, U64 = 64, C64 = 64,
      }
      local entries, at = {}, 0
      for dtype, bits in pairs(sizes) do
        entries[#entries + 1] = ('"%s":{"dtype":"%s","shape":[2,4],"data_offsets":[%d,%d]}'):format(dtype, dtype, at, at + bits)
        at = at + bits
      end
      table.sort(entries)
      make("{" .. table.concat(entries, ",") .. "}", ("x"):rep(at))
      assert.equal(6, safetensors.open(path).tensors.F6_E2M3.size)
    end)

    it("in time that is proportional to their length", function()
      local function seconds(n)
        local entries = {}
        for i = 1, n do entries[i] = ('"t%d":{%s}'):format(i, empty) end
        make("{" .. table.concat(entries, ",") .. "}")
        local from = os.clock()
        assert.equal(n, #safetensors.open(path).names)
        return os.clock() - from
      end
      local few = seconds(20000)
      assert.is_true(seconds(200000) < 40 * math.max(few, 0.01))
    end)
  end)

  describe("of a sealed file", function()
    local function write()
      safetensors.write(path, {
        { name = "a", tensor = core.tensor({ 2 }, { 1, 2 }) }, { name = "b", dtype = "I64", shape = {}, bytes = ("x"):rep(8) },
      }, { key = '"mptl.crc32c":"' }, true)
      return slurp()
    end

    it("reads the same as from another one", function()
      write()
      local file = safetensors.open(path)
      safetensors.check(file)
      assert.same({ "a", "b" }, file.names)
      assert.same({ 1, 2 }, safetensors.read(file, "a", core.tensor { 2 }):totable())
    end)

    it("finds every flipped bit, and names the tensor", function()
      local text = write()
      local first, last = text:find('"mptl.crc32c":', 1, true)
      for at = 1, #text do
        for bit = 0, 7 do
          spill(text:sub(1, at - 1) .. string.char(text:byte(at) ~ 1 << bit) .. text:sub(at + 1))
          local ok, message = pcall(function() safetensors.check(safetensors.open(path)) end)
          assert.is_true(not ok or (at > first and at < last), at) -- damage of the key itself: checkpoints find it
          assert.is_true(ok or (message:sub(1, #path) == path and not message:find "\n"), message)
          if at > #text - 16 then
            local name = at > #text - 8 and "b" or "a"
            assert.matches(("damaged: tensor %s: its checksum is %%x+, that of its bytes %%x+$"):format(name), message)
          end
        end
      end
    end)
  end)

  it("is read from one file, even if another replaces it meanwhile", function()
    local function save(value)
      safetensors.write(path, { { name = "a", tensor = core.tensor({ 2 }, { value, value }) } }, {}, true)
    end
    save(1)
    local file = safetensors.open(path)
    save(2)
    safetensors.check(file)
    assert.same({ 1, 1 }, safetensors.read(file, "a", core.tensor { 2 }):totable())
    assert.same({ 2, 2 }, safetensors.read(safetensors.open(path), "a", core.tensor { 2 }):totable())
  end)
end)
