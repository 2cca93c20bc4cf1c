-- usage: spec/run build lua5.4 spec/fuzz/files.lua SECONDS DIR    damaged files of the formats that Lua reads, by the functions
-- that commands call. For any bytes they must succeed, or fail with one line that names the file and shows nothing of the inside
-- of Lua. Inputs that break this rule are written to DIR. FUZZ_SEED in the environment repeats a run.
local checkpoint = require "mptl.checkpoint"
local core = require "mptl.core"
local data_check = require "mptl.dataset.check"
local files = require "data_files"
local folder = require "mptl.folder"
local json = require "mptl.json"
local resume = require "mptl.resume"
local runs = require "mptl.report.runs"
local origin = require "mptl.dataset.origin"

local seconds, found = tonumber(arg[1]) or 60, arg[2] or "."
local dir = files.directory()
local seed = tonumber(os.getenv "FUZZ_SEED") or os.time()
math.randomseed(seed)
print("FUZZ_SEED=" .. seed)

-- ---- Damage ----

local numbers = { "0", "-1", "4294967296", "18446744073709551616", "1e999", "1.5", "null", "[]", "{}", '""', "true" }

-- Two places in a text, in order.
local function places(t)
  local a, b = math.random(#t), math.random(#t)
  return math.min(a, b), math.max(a, b)
end

-- Makes a function text -> text that replaces one match of a pattern, after a random position.
local function replaces(pattern)
  return function(t)
    local first, last = t:find(pattern, math.random(#t))
    return first and t:sub(1, first - 1) .. numbers[math.random(#numbers)] .. t:sub(last + 1) or t
  end
end

-- By kind: text -> another text.
local damages = {
  function(t) -- a bit
    local at = math.random(#t)
    return t:sub(1, at - 1) .. string.char(t:byte(at) ~ 1 << math.random(0, 7)) .. t:sub(at + 1)
  end,
  function(t) return t:sub(1, math.random(#t) - 1) end,
  function(t) -- a part is missing
    local first, last = places(t)
    return t:sub(1, first - 1) .. t:sub(last)
  end,
  function(t) -- a part is repeated elsewhere
    local first, last = places(t)
    local at = math.random(#t)
    return t:sub(1, at) .. t:sub(first, math.min(last, first + 200)) .. t:sub(at + 1)
  end,
  function(t) -- bytes that do not belong there
    local at = math.random(#t)
    return t:sub(1, at - 1) .. string.char(math.random(0, 255)):rep(math.random(1, 9)) .. t:sub(at)
  end,
  replaces "%f[%w.-]-?%d+%.?%d*%f[^%w.]", replaces '"[^"]*"', -- numbers and texts of JSON
}

local function damaged(text)
  for _ = 1, math.random(1, 3) do
    if #text > 0 then text = damages[math.random(#damages)](text) end
  end
  return text
end

-- ---- Readers: name -> {text of a sound file, function (path) that reads it} ----

local function graph_and_model()
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { 2, 4, 4 } }, { out = 2, kernel = 3, padding = 1, bias = false })
  x = g:flatten(g:add("batchnorm2d", "bn", { x }))
  g:add("nll_loss", "loss", { g:add("log_softmax", "softmax", { g:add("linear", "fc", { x }, { out = 3 }) }) })
  local formats = { v = "fp32", dv = "fp32", theta = "fp32", dtheta = "fp32" }
  local model = core.model(g, { seed = 1 })
  core.program(model, core.assignment(g, 2, { high = formats, low = formats }), { batch = 2, train = true })
  return g, model
end

local graph, model = graph_and_model()
local state = {
  epoch = 1, batch = 2, step = 3, updates = 3, promotions = 0, best = 10.5,
  sums = { loss = 1.5, correct = 1, count = 2, skipped = 0, nan_steps = 0, seconds = 0.5, bad_images = 0 },
  loss_scale = { scale = 1024.0, good = 1 }, formats = { { v = { "fp32", false } } }, settings = { lr = 0.1, batch = 16 },
}

local function read_checkpoint(path)
  local saved, file = checkpoint.state(path)
  if saved then
    resume.check_evaluated(path, saved)
    resume.check_continued(path, saved, 3)
  end
  checkpoint.load(file, graph, model, true)
end

local function sound_checkpoint(sealed)
  local path = dir .. "/sound.safetensors"
  checkpoint.save(path, graph, model, state)
  local text = files.read(path)
  if sealed then return text end
  return (text:gsub('"mptl.crc32c":"', '"mptl.crc32x":"'):gsub('\\"sealed\\":true', '\\"sealed\\":null'))
end

local function archive(options)
  files.write(dir .. "/in/train/a/1.jpg", files.jpeg({ 9, 9, 9 }, 8, 8))
  files.write(dir .. "/in/val/a/2.jpg", files.jpeg({ 9, 9, 9 }, 8, 8))
  assert(os.execute(("cd %s/in && %s"):format(dir, options)))
  return files.read(dir .. "/archive")
end

local function read_archive(path)
  local next_item = origin.open(path)
  for inside, kind, read in next_item do
    origin.hidden(inside)
    origin.place(inside, {})
    if kind == "file" and origin.is_image(inside) then core.survey_bytes { read() } end
  end
end

-- Labels and reports: the folder of a run.
local function read_run(path)
  local run = path .. ".run"
  folder.make(run)
  for _, name in ipairs { "config.json", "plan.json", "metrics.jsonl", "steps.jsonl", "changes.jsonl", "tensors.jsonl" } do
    files.write(run .. "/" .. name, files.read(path))
  end
  runs.load { run }
  folder.remove(run)
end

local function read_cifar(path)
  local set = path .. ".cifar"
  folder.make(set)
  files.write(set .. "/data_batch_1.bin", files.read(path))
  files.write(set .. "/batches.meta.txt", files.read(path):sub(1, 200))
  data_check.survey(set, function() end)
  folder.remove(set)
end

local line = json.encode {
  epoch = 1, lr = 0.1, train_loss = 1.5, test_acc = 10, step = 1, operator = "conv", role = "v", from = "a",
}
local readers = {
  checkpoint = { sound_checkpoint(false), read_checkpoint },
  sealed = { sound_checkpoint(true), read_checkpoint },
  tar = { archive "tar -cf ../archive .", read_archive },
  targz = { archive "tar -czf ../archive .", read_archive },
  zip = { archive "rm -f ../archive && zip -qr ../archive.zip . && mv ../archive.zip ../archive", read_archive },
  labels = { "val_1.JPEG,n02 1 2\nval_2 n01\n", origin.labels },
  run = { line .. "\n" .. line .. "\n", read_run },
  cifar = { files.flat(1, 2):rep(3), read_cifar },
}

-- What is wrong with an error; nil when nothing is.
local function fault_of(message, path)
  if type(message) ~= "string" then return "no text" end
  if message:find("\n", 1, true) then return "more than one line" end
  if message:find "%.lua:%d+:" or message:find "attempt to " or message:find "stack traceback" or message:find "bad argument" then
    return "the inside of Lua"
  end
  if not message:find(path, 1, true) then return "does not name the file" end
end

local names, tried, faults = {}, 0, 0
for name in pairs(readers) do names[#names + 1] = name end
table.sort(names)
local path, until_then = dir .. "/file", core.time() + seconds
while core.time() < until_then do
  local name = names[tried % #names + 1]
  local sound, read = table.unpack(readers[name])
  local text = tried < #names and sound or damaged(sound)
  files.write(path, text)
  local from = core.time()
  local ok, message = pcall(read, path)
  if type(message) == "table" and message.message then message = message.message end -- a usage error
  local fault = not ok and fault_of(message, path) or (core.time() - from > 10 and "takes more than 10 s")
  if tried < #names and not ok and name ~= "labels" then fault = "refused when it was sound" end
  if fault then
    faults = faults + 1
    local kept = ("%s/files-%s-%d"):format(found, name, tried)
    files.write(kept, text)
    print(("%s: %s: %s (%s)"):format(name, fault, tostring(message), kept))
  end
  tried = tried + 1
end
files.remove(dir)
print(("%d inputs, %d faults"):format(tried, faults))
os.exit(faults == 0)
