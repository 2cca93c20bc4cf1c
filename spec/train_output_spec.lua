-- What a run prints, and the TensorBoard events that it writes.
local core = require "mptl.core"
local events = require "support.events"
local files = require "data_files"
local lfs = require "lfs"
local progress = require "mptl.progress"
local runs = require "support.runs"
local tensorboard = require "mptl.tensorboard"

describe("tensorboard", function()
  local dir

  before_each(function() dir = files.directory() end)
  after_each(function() files.remove(dir) end)

  it("computes CRC-32C", function()
    assert.equal(0xe3069283, core.crc32c "123456789") -- the check value in the catalogue of CRCs
    assert.equal(0x8a9136aa, core.crc32c(("\0"):rep(32))) -- RFC 3720, B.4
  end)

  it("writes the version and then scalars by step", function()
    local writer = assert(tensorboard.open(dir))
    writer:add(300, { { "train/loss", 0.5 }, { "test/loss", nil }, { "lr", 0.1 } })
    writer:close()
    local list = events.read(writer.path)
    assert.equal(2, #list)
    assert.same({ 3, "brain.Event:2" }, list[1][2])
    assert.near(os.time(), list[2][1][2], 60)
    assert.same({ 2, 300 }, list[2][2])
    local values = events.fields(list[2][3][2])
    assert.equal(2, #values)
    assert.same({ { 1, "train/loss" }, { 2, 0.5 } }, events.fields(values[1][2]))
    assert.same({ 1, "lr" }, events.fields(values[2][2])[1])
  end)

  it("leaves out an event without scalars", function()
    local writer = tensorboard.open(dir)
    writer:add(1, { { "test/loss", nil } })
    writer:close()
    assert.equal(1, #events.read(writer.path))
  end)

  it("raises when a file cannot be written", function()
    local ok, message = pcall(tensorboard.open, dir .. "/none")
    assert.is_false(ok)
    assert.matches("^cannot write .*/none/events%.out%.[^:]+: No such file or directory$", message)
  end)

  describe("cut back", function()
    local function points(keep)
      tensorboard.cut(dir, keep)
      local list = {}
      for i, p in ipairs(events.points(dir)) do list[i] = ("%s %d"):format(p.tag, p.step) end
      return list
    end

    local function epochs_to(last)
      return function(tag, step) return tag ~= "epoch" or step <= last end
    end

    local path

    before_each(function()
      local writer = tensorboard.open(dir)
      path = writer.path
      for step = 1, 300 do -- steps of one and of two bytes
        if step % 100 == 0 then writer:add(step, { { "step", step }, { "more", step } }) end
        if step % 150 == 0 then writer:add(step // 150, { { "epoch", 0.5 } }) end
      end
      writer:close()
    end)

    it("keeps the events up to a step, and does not write the file when these are all", function()
      local inode = lfs.attributes(path, "ino")
      local whole = { "step 100", "more 100", "epoch 1", "step 200", "more 200", "step 300", "more 300", "epoch 2" }
      assert.same(whole, points(epochs_to(2)))
      assert.equal(inode, lfs.attributes(path, "ino")) -- it was not written again
      table.remove(whole)
      assert.same(whole, points(epochs_to(1)))
      table.remove(whole, 3)
      assert.same(whole, points(epochs_to(0)))
    end)

    it("removes a file without events, and does not touch files of other programs", function()
      runs.spill(dir .. "/events.out.tfevents.1.host.2", "not ours")
      assert.same({}, points(function() return false end))
      local names = {}
      for name in lfs.dir(dir) do names[#names + 1] = name:match "^events.*" end
      assert.same({ "events.out.tfevents.1.host.2" }, names)
    end)

    it("drops an incomplete or damaged event, and what follows it", function()
      local text = runs.slurp(path)
      local all = function() return true end
      for _, damaged in ipairs { text:sub(1, -2), text:sub(1, -30) .. ("\0"):rep(29), text .. "\0\0\0" } do
        runs.spill(path, damaged)
        assert.equal(#damaged > #text and 8 or 7, #points(all))
      end
    end)
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

  it("leaves out the bar, and cuts off the end, when there is no room", function()
    local text = display(60):text(state)
    assert.equal("epoch 3/15  50/200  loss 1.2500  acc 45.68%  1234 img/s  ET", text)
    assert.equal(59, #text)
  end)

  it("removes the bar before a line", function()
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

  it("prints an epoch in a line", function()
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
