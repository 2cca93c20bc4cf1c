local core = require "mptl.core"
local files = require "data_files"

local MEAN, STD = { 0.4914, 0.4822, 0.4465 }, { 0.2023, 0.1994, 0.2010 }

--- The rest of a loader's epoch: list of {n=, labels=, indices=, bytes=}.
local function rest(loader)
  local batches = {}
  local n = loader:next()
  while n do
    batches[#batches + 1] = { n = n, labels = loader:labels(), indices = loader:indices(), bytes = loader:images():tostring() }
    n = loader:next()
  end
  return batches
end

local function epoch(loader, number, first_batch)
  loader:start(number, first_batch)
  return rest(loader)
end

local function indices(batches)
  local all = {}
  for _, batch in ipairs(batches) do table.move(batch.indices, 1, batch.n, #all + 1, all) end
  return all
end

describe("loader", function()
  local dir, ds

  setup(function() ds = core.dataset_synthetic{ count = 50, seed = 5 } end)
  before_each(function() dir = files.directory() end)
  after_each(function() files.remove(dir) end)

  it("gives the data set's order, the last batch smaller", function()
    local loader = core.loader(ds, { batch = 16 })
    assert.equal(4, loader:batches())
    local batches = epoch(loader, 0)
    assert.same({ 16, 16, 16, 2 }, { batches[1].n, batches[2].n, batches[3].n, batches[4].n })
    assert.same({ 49, 50 }, batches[4].indices)
    assert.same({ 8, 9 }, batches[4].labels)
    assert.is_nil(loader:next())
    assert.is_nil(loader:next())
  end)

  it("leaves the last batch out with drop_last", function()
    local loader = core.loader(ds, { batch = 16, drop_last = true })
    assert.equal(3, loader:batches())
    assert.equal(48, #indices(epoch(loader, 0)))
    assert.equal(2, core.loader(ds, { batch = 25, drop_last = true }):batches())
  end)

  it("normalises as (p/255 - mean) / std, channels last", function()
    local image = files.entry({ 1 }, function(c, y, x) return ({ 0, 128, 255 })[c + 1] - (c > 0 and y == 1 and x or 0) end)
    files.write(dir .. "/data_batch_1.bin", image)
    local loader = core.loader(core.dataset_cifar{ path = dir }, { batch = 1, mean = MEAN, std = STD })
    loader:start(0)
    loader:next()
    local images = loader:images()
    assert.same({ 1, 32, 32, 3 }, images:size())
    local function near(want, i) assert.near(want, images:get(i), 1e-6) end
    near(-0.4914 / 0.2023, 1)
    near((128 / 255 - 0.4822) / 0.1994, 2)
    near((1 - 0.4465) / 0.2010, 3)
    near((120 / 255 - 0.4822) / 0.1994, (32 + 8) * 3 + 2) -- second row, ninth column, green
    assert.same({ 1 }, loader:labels())
  end)

  it("returns p/255 without mean and std", function()
    files.write(dir .. "/data_batch_1.bin", files.flat(0, 51))
    local loader = core.loader(core.dataset_cifar{ path = dir }, { batch = 1 })
    loader:start(0)
    loader:next()
    assert.near(0.2, loader:images():get(1), 1e-7)
  end)

  it("gives each image once an epoch, in an order of the epoch and the seed", function()
    local loader = core.loader(ds, { batch = 7, shuffle = true, seed = 1 })
    local first, second = indices(epoch(loader, 0)), indices(epoch(loader, 1))
    assert.not_same(first, second)
    assert.same(first, indices(epoch(loader, 0)))
    assert.not_same(first, indices(epoch(core.loader(ds, { batch = 7, shuffle = true, seed = 2 }), 0)))
    local sorted, want = table.move(first, 1, 50, 1, {}), {}
    table.sort(sorted)
    for i = 1, 50 do want[i] = i end
    assert.same(want, sorted)
    assert.not_same(want, first)
  end)

  it("makes every order equally likely", function()
    local three, counts = core.dataset_synthetic{ count = 3 }, {}
    local loader = core.loader(three, { batch = 3, shuffle = true })
    for number = 1, 1200 do
      local order = table.concat(indices(epoch(loader, number)))
      counts[order] = (counts[order] or 0) + 1
    end
    for _, order in ipairs{ "123", "132", "213", "231", "312", "321" } do
      assert.is_true(counts[order] > 150 and counts[order] < 250) -- 200 expected, deviation 13
    end
  end)

  it("gives the images and labels that belong to the indices", function()
    local loader = core.loader(ds, { batch = 50, shuffle = true })
    local batch = epoch(loader, 3)[1]
    local images = core.tensor({ 50, 32, 32, 3 }):fromstring(batch.bytes)
    for i, index in ipairs(batch.indices) do
      assert.equal(ds:label(index), batch.labels[i])
      local image = ds:image(index)
      for _, pixel in ipairs{ 0, 500, 1023 } do
        for c = 0, 2 do
          assert.near(image:get(c * 1024 + pixel + 1) / 255, images:get((i - 1) * 3072 + pixel * 3 + c + 1), 1e-6)
        end
      end
    end
  end)

  it("gives the same batches with any number of threads and slots", function()
    local function all(threads, slots)
      return epoch(core.loader(ds, { batch = 7, shuffle = true, augment = true, threads = threads, slots = slots }), 2)
    end
    local one = all(1, 1)
    assert.equal(8, #one)
    assert.same(one, all(1))
    assert.same(one, all(3))
    assert.same(one, all(2, 2))
  end)

  it("begins in the middle of an epoch with the same batches", function()
    local loader = core.loader(ds, { batch = 7, shuffle = true, augment = true, threads = 2 })
    local whole = epoch(loader, 4)
    assert.same({ table.unpack(whole, 4) }, epoch(loader, 4, 3))
    assert.same({}, epoch(loader, 4, 8))
    loader:start(9)
    loader:next()
    assert.same(whole, epoch(loader, 4)) -- after an epoch that was abandoned
  end)

  describe("augmentation", function()
    --- The byte at (y, x) of image after a crop at (top, left) of the image padded by four zeros, mirrored or not.
    local function cropped(image, c, y, x, top, left, flip)
      local row, column = y + top - 4, (flip and 31 - x or x) + left - 4
      if row < 0 or row > 31 or column < 0 or column > 31 then return 0 end
      return image:get(c * 1024 + row * 32 + column + 1)
    end

    local places = { { 0, 0 }, { 0, 31 }, { 31, 0 }, { 31, 31 }, { 3, 17 }, { 16, 9 }, { 20, 28 } }

    --- The crop of image that is the i-th image of the tensor: top, left, flip; nil when no crop is.
    local function find_crop(images, i, image)
      local function fits(top, left, flip, points)
        for _, p in ipairs(points) do
          for c = 0, 2 do
            local want = (cropped(image, c, p[1], p[2], top, left, flip) / 255 - MEAN[c + 1]) / STD[c + 1]
            if math.abs(images:get(((i * 32 + p[1]) * 32 + p[2]) * 3 + c + 1) - want) > 1e-5 then return false end
          end
        end
        return true
      end
      local all = {}
      for y = 0, 31 do for x = 0, 31 do all[#all + 1] = { y, x } end end
      for top = 0, 8 do
        for left = 0, 8 do
          for _, flip in ipairs{ false, true } do
            if fits(top, left, flip, places) and fits(top, left, flip, all) then return top, left, flip end
          end
        end
      end
    end

    it("is a crop of the padded image, mirrored or not, and all crops occur", function()
      local loader = core.loader(ds, { batch = 50, augment = true, mean = MEAN, std = STD, seed = 8 })
      local tops, lefts, flips = {}, {}, { [true] = 0, [false] = 0 }
      for number = 0, 3 do
        loader:start(number)
        loader:next()
        local images = loader:images()
        for i, index in ipairs(loader:indices()) do
          local top, left, flip = find_crop(images, i - 1, ds:image(index))
          assert.is_truthy(top)
          tops[top], lefts[left], flips[flip] = true, true, flips[flip] + 1
        end
      end
      for i = 0, 8 do assert.is_true(tops[i] and lefts[i]) end
      assert.is_true(flips[true] > 70 and flips[false] > 70) -- of 200: deviation 7
    end)

    it("depends on epoch and seed, not on the order of images", function()
      local function images(seed, number, shuffle)
        local loader = core.loader(ds, { batch = 50, augment = true, seed = seed, shuffle = shuffle })
        local batch, by_index = epoch(loader, number)[1], {}
        for i, index in ipairs(batch.indices) do by_index[index] = batch.bytes:sub((i - 1) * 12288 + 1, i * 12288) end
        return by_index
      end
      assert.same(images(1, 0, true), images(1, 0, false))
      assert.not_same(images(1, 0), images(1, 1))
      assert.not_same(images(1, 0), images(2, 0))
    end)
  end)

  it("keeps its data set alive", function()
    local loader = core.loader(core.dataset_synthetic{ count = 8 }, { batch = 4, threads = 2 })
    collectgarbage()
    collectgarbage()
    assert.equal(2, #epoch(loader, 0))
  end)

  it("names what is wrong", function()
    local function fails(options, message)
      assert.has_error(function() core.loader(ds, options) end, message)
    end
    fails({ batch = 512 }, "batch 512 is larger than the training set (50 images)")
    fails({ batch = 51, drop_last = true }, "batch 51 is larger than the training set (50 images)")
    fails({ batch = 0 }, "batch: 0, must be positive")
    fails({ batch = 2 ^ 40 // 1 | 0 }, "batch: 1099511627776, must fit in 32 bits")
    fails({ batch = 4, threads = 65 }, "loader threads: 65, accepted are 1 to 64")
    fails({ batch = 4, slots = 257 }, "loader slots: 257, accepted are 1 to 256")
    fails({ batch = 4, std = { 1, 0, 1 } }, "std of channel 2: 0, must be positive and finite")
    fails({ batch = 4, mean = { 0, 0, 1 / 0 } }, "mean of channel 3: inf, must be finite")
    fails({ batch = 4, mean = { 0, 0 } }, "mean: must be a list of 3 numbers")
    fails({ batch = 4, shufle = true },
      "unknown option shufle, accepted are: batch shuffle augment mean std seed threads slots drop_last device")
    local loader = core.loader(ds, { batch = 7 })
    assert.has_error(function() loader:next() end, "loader: the next batch was asked for before an epoch was started")
    assert.has_error(function() loader:start(-1) end, "epoch: -1, accepted are 0 to 2^32-1")
    assert.has_error(function() loader:start(0, 9) end, "first batch: 9, accepted are 0 to 8")
    loader:start(0)
    assert.has_error(function() loader:images() end, "loader: no current batch, call loader:next() first")
    assert.has_error(function() core.loader(core.dataset_synthetic{ count = 1, split = "test" }) end,
      "batch 128 is larger than the test set (1 image)")
  end)
end)
