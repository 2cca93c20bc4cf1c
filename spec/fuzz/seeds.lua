-- usage: spec/run build lua5.4 spec/fuzz/seeds.lua DIR    writes the first inputs of the targets, in a folder for each; those for
-- jpeg come from fuzz_jpeg_seeds. Inputs that showed a fault which has been fixed are kept in spec/fuzz/found.
local core = require "mptl.core"
local files = require "data_files"
local safetensors = require "mptl.safetensors"

local dir = assert(arg[1], "usage: seeds.lua DIR")

local function spill(name, ...)
  files.write(dir .. "/" .. name, ...)
end

-- safetensors: the size of the data in two bytes, then the header.
local function header(name, text, data_size)
  spill("safetensors/" .. name, string.pack(">I2", data_size), text)
end

header("empty", "{}", 0)
header("escapes", [[{"\ud83d\ude00\n\u00e9":{"dtype":"F4","shape":[2,0],"data_offsets":[0,0],]]
  .. [["x":[1,-2.5e3,{"a":null,"b":[true]}]}}]], 0)
header("wraps", '{"x":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}', 0)
do
  local path = os.tmpname()
  safetensors.write(path, {
    { name = "a", tensor = core.tensor { 2, 3 } }, { name = "b", dtype = "I64", shape = {}, bytes = ("x"):rep(8) },
  }, { format = "pt", mptl = "{}" }, true)
  local text = string.unpack("<s8", files.read(path))
  os.remove(path)
  header("sealed", text, 32)
end

do
  local path = os.tmpname() .. ".mptl"
  local packer <close> = core.packer(path)
  packer:add("train", "pear", "b.jpg", "pear b")
  packer:add("train", "apple", "2.jpg", "second apple")
  packer:add("test", "pear", "9.jpg", "test pear nine")
  packer:finish()
  spill("packed/small", files.read(path))
  os.remove(path)
end

local names = { [10] = "airplane\n", [100] = "apple\n" }
for _, case in ipairs { { 0x00, 10 }, { 0x0a, 10 }, { 0x01, 100 }, { 0x1c, 10 } } do
  local options, classes = table.unpack(case)
  local label = classes == 10 and "\3" or "\3\4"
  spill(("cifar/%02x"):format(options), string.char(options, #names[classes]), names[classes],
    (label .. ("x"):rep(3072)):rep(4))
end
