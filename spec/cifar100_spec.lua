-- CIFAR-100 from its files to a trained, resumed and evaluated network.
local files = require "data_files"
local json = require "mptl.json"
local runs = require "support.runs"

describe("training on CIFAR-100", function()
  local dir
  local train = "train hundred.lua --dataset cifar100 --data data --quiet "

  local function records(first, count)
    local list = {}
    for i = 1, count do
      local fine = (first + 7 * i) % 100
      list[i] = files.entry({ fine // 5, fine }, function(c, y, x) return (fine * 2 + c * 20 + x + y * i) % 256 end)
    end
    return table.concat(list)
  end

  setup(function()
    dir = runs.directory()
    runs.spill(dir .. "/hundred.lua", (runs.script:gsub("256 %* cfg.width, 10 ", "256 * cfg.width, cfg.classes ")))
    files.write(dir .. "/data/cifar-100-binary/train.bin", records(3, 40))
    files.write(dir .. "/data/cifar-100-binary/test.bin", records(50, 20))
    assert.equal(0, (runs.mptl(dir, train .. "--out whole")))
  end)
  teardown(function() runs.remove(dir) end)

  it("has a hundred classes", function()
    local config = json.decode(runs.slurp(dir .. "/whole/config.json"))
    assert.same({ 100, "cifar100", { 3, 32, 32 } }, { config.classes, config.dataset, config.input })
    assert.near(math.log(100), runs.metrics(dir .. "/whole")[1].train_loss, 3)
  end)

  it("resumes bit for bit", function()
    assert.equal(130, (runs.mptl(dir, train .. "--out cut", "KILL=4")))
    assert.equal(0, (runs.mptl(dir, train .. "--out cut --resume")))
    assert.same(runs.reproducible(dir .. "/whole"), runs.reproducible(dir .. "/cut"))
    assert.is_true(runs.same_files(dir .. "/whole/last.safetensors", dir .. "/cut/last.safetensors"))
  end)

  it("can be evaluated", function()
    local code, out = runs.mptl(dir, "eval hundred.lua whole/last.safetensors --data data --json")
    local result, last = json.decode(out), runs.metrics(dir .. "/whole")[3]
    assert.same({ 0, 20, last.test_loss, last.test_acc_fp32 }, { code, result.images, result.test_loss, result.test_acc_fp32 })
  end)
end)
