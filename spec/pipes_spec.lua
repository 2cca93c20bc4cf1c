-- Files that users name: a pipe instead of a file is an error; no command waits for data that never arrives.
local files = require "data_files"
local runs = require "support.runs"

describe("a pipe is refused by", function()
  local dir

  setup(function()
    dir = runs.directory()
    assert(os.execute(("cd %s && mkfifo p p.lua p.safetensors && mkdir run piped logged cifar images && mkfifo run/config.json "
      .. "run/metrics.jsonl piped/metrics.jsonl logged/run.log cifar/data_batch_1.bin cifar/test_batch.bin"):format(dir)))
    files.write(dir .. "/images/a/1.jpg", files.jpeg({ 9, 9, 9 }, 8, 8))
  end)
  teardown(function() runs.remove(dir) end)

  local commands = {
    ["train p.lua"] = "mptl train: script p.lua: not a file",
    ["train tiny.lua --out piped --quiet"] = "mptl: cannot read piped/metrics.jsonl: a pipe, must be a regular file\n",
    ["train tiny.lua --out logged --quiet"] = "mptl: cannot write logged/run.log: a pipe, must be a regular file\n",
    ["train tiny.lua --policy p.lua"] = "mptl train: --policy: p.lua, accepted are ",
    ["train tiny.lua --dataset cifar10 --data cifar"] = "mptl: cifar/data_batch_1.bin: not a regular file",
    ["bench loader --dataset imagenet --data p"] = "mptl bench: dataset imagenet: not found: looked in p ",
    ["sweep p.lua"] = "mptl sweep: sweep p.lua: no such file",
    ["eval tiny.lua p.safetensors"] = "mptl: cannot read p.safetensors: a pipe, must be a regular file",
    ["report run"] = "mptl",
    ["data check p"] = "mptl data: p: no data set, accepted are",
    ["data check cifar"] = "",
    ["data import p set.mptl"] = "mptl data: p: a named pipe, accepted are folders, tar and zip files",
    ["data import images set.mptl --test images --test-labels p"] = "mptl data: --test-labels p: a pipe, must be a regular file",
  }
  for command, message in pairs(commands) do
    it(command, function()
      local code, _, err = runs.mptl(dir, command, "timeout 20")
      assert.is_true(code ~= 0 and code ~= 124, code)
      assert.equal(message, err:sub(1, #message))
    end)
  end
end)
