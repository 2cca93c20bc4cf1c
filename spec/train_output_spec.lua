-- What a run shows while it runs, and the TensorBoard events it leaves.
local files = require "data_files"
local progress = require "mptl.progress"
local tensorboard = require "mptl.tensorboard"

--- The fields of a protobuf message: list of {number, value}; delimited values are strings.
local function fields(bytes)
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

describe("tensorboard", function()
  local dir

  before_each(function() dir = files.directory() end)
  after_each(function() files.remove(dir) end)

  --- The events of a file, checksums checked.
  local function events(path)
    local f <close> = assert(io.open(path, "rb"))
    local text, at, list = f:read "a", 1, {}
    local function masked(s)
      local c = tensorboard.crc32c(s)
      return ((c >> 15 | c << 17) + 0xa282ead8) & 0xffffffff
    end
    while at <= #text do
      local length, crc = string.unpack("<I8I4", text, at)
      assert.equal(masked(text:sub(at, at + 7)), crc)
      local event = text:sub(at + 12, at + 11 + length)
      assert.equal(masked(event), (string.unpack("<I4", text, at + 12 + length)))
      list[#list + 1] = fields(event)
      at = at + 16 + length
    end
    return list
  end

  it("computes CRC-32C", function()
    assert.equal(0xe3069283, tensorboard.crc32c "123456789") -- the check value in the catalogue of CRCs
    assert.equal(0x8a9136aa, tensorboard.crc32c(("\0"):rep(32))) -- RFC 3720, B.4
  end)

  it("writes the version and then scalars by step", function()
    local writer = assert(tensorboard.open(dir))
    writer:add(300, { { "train/loss", 0.5 }, { "test/loss", nil }, { "lr", 0.1 } })
    writer:close()
    local list = events(writer.path)
    assert.equal(2, #list)
    assert.same({ 3, "brain.Event:2" }, list[1][2])
    assert.near(os.time(), list[2][1][2], 60)
    assert.same({ 2, 300 }, list[2][2])
    local values = fields(list[2][3][2])
    assert.equal(2, #values)
    assert.same({ { 1, "train/loss" }, { 2, 0.5 } }, fields(values[1][2]))
    assert.same({ 1, "lr" }, fields(values[2][2])[1])
  end)

  it("never writes into an older file", function()
    local a, b = tensorboard.open(dir), tensorboard.open(dir)
    assert.not_equal(a.path, b.path)
    a:close()
    b:close()
  end)
end)

describe("progress", function()
  local function display(width)
    local out = { text = "" }
    function out:write(...) self.text = self.text .. table.concat { ... } end
    function out.flush() end
    return progress.create { epochs = 15, lines = true, bar = true, width = width, out = out }, out
  end

  local state = {
    epoch = 3, step = 50, steps = 200, loss = 1.25, acc = 45.678, images_per_s = 1234.5, eta = 3725, loss_scale = 65536,
  }

  it("shows epoch, step, loss, accuracy, speed, time left and loss scale", function()
    assert.equal("epoch 3/15 [#####...............] 50/200  loss 1.2500  acc 45.68%  1234 img/s  ETA 1:02:05  scale 2^16",
      display(103):text(state))
  end)

  it("leaves the bar out, and cuts the end, where there is no room", function()
    local text = display(60):text(state)
    assert.equal("epoch 3/15  50/200  loss 1.2500  acc 45.68%  1234 img/s  ET", text)
    assert.equal(59, #text)
  end)

  it("takes the bar away before a line", function()
    local d, out = display(60)
    d:step(state)
    d:line("done %d", 1)
    assert.matches("ET\r\27%[Kdone 1\n$", out.text)
  end)

  it("does not draw at every step", function()
    local d, out = display(60)
    for _ = 1, 100 do d:step(state) end
    local _, n = out.text:gsub("\r", "")
    assert.is_true(n < 10)
  end)

  it("tells an epoch in a line", function()
    local d, out = display(60)
    d:epoch {
      epoch = 3, lr = 0.1, train_loss = 1.5, train_acc = 50, test_loss = 1.25, test_acc = 55.5, test_acc_fp32 = 56,
      skipped_steps = 2, promotions = 0, images_per_s = 100.4, seconds = 12.34,
    }
    assert.equal("epoch  3/15  lr 0.1  train 1.5000 50.00%  test 1.2500 55.50% (fp32 56.00%)  skipped 2  100 img/s  12.3 s\n",
      out.text)
  end)

  it("writes durations as minutes or hours", function()
    assert.same({ "0:00", "1:05", "1:00:00" }, { progress.duration(0.2), progress.duration(64.6), progress.duration(3600) })
  end)
end)
