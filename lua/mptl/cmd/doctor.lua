--- mptl doctor: what this machine offers, and what is missing.
local core = require "mptl.core"
local json = require "mptl.json"
local lfs = require "lfs"
local mptl = require "mptl"
local script = require "mptl.script"

local M = { name = "doctor", summary = "what this machine offers: processor, libraries, data sets; what is missing" }

function M.configure(parser)
  parser:option("--data", "look for data sets here (else $MPTL_DATA, $XDG_DATA_HOME/mptl)"):argname("DIR")
  parser:flag("--json", "print JSON")
end

-- The folders that are searched for data sets.
local function data_folders(given)
  if given then return { given } end
  local list = {}
  if os.getenv "MPTL_DATA" then list[1] = os.getenv "MPTL_DATA" end
  local share, home = os.getenv "XDG_DATA_HOME", os.getenv "HOME"
  if share and share ~= "" then
    list[#list + 1] = share .. "/mptl"
  elseif home then
    list[#list + 1] = home .. "/.local/share/mptl"
  end
  return list
end

local function find_cifar(folders, classes)
  if not core.dataset_find then return nil end
  for _, folder in ipairs(folders) do
    local ok, found = pcall(core.dataset_find, { path = folder, classes = classes, split = "test" })
    if ok and found then return found end
  end
end

local function find_imagenet(folders)
  for _, folder in ipairs(folders) do
    for _, path in ipairs { folder, folder .. "/imagenet" } do
      if lfs.attributes(path .. "/train", "mode") == "directory" and lfs.attributes(path .. "/val", "mode") == "directory" then
        return path
      end
    end
  end
end

local function features(cpu)
  local list = {}
  for name, has in pairs(cpu.features) do
    if has then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

--- What `mptl doctor` tells, as a table.
-- @param data folder to look for data sets in, or nil
-- @return a table that mptl.json encodes in a fixed order
function M.table(data)
  local cpu, folders = core.cpu(), data_folders(data)
  local sets = {
    cifar10 = find_cifar(folders, 10), cifar100 = find_cifar(folders, 100), imagenet = find_imagenet(folders),
  }
  local missing = {}
  for _, name in ipairs { "cifar10", "cifar100", "imagenet" } do
    if not sets[name] then missing[#missing + 1] = ("data set %s: not in %s"):format(name, table.concat(folders, ", ")) end
  end
  local cuda, devices = core.cuda(), { "cpu" }
  for i, text in ipairs(cuda.devices) do devices[i + 1] = ("cuda:%d, %s"):format(i - 1, text) end
  if cuda.missing then missing[#missing + 1] = "device cuda: " .. cuda.missing end
  if #script.models() == 0 then missing[#missing + 1] = "model scripts: none installed" end
  local order = {
    "version", "lua", "cpu", "cores", "features", "kernels", "compute", "threads", "backends", "cuda", "devices", "models",
    "datasets", "missing",
  }
  return json.object(order, {
    version = mptl.version, lua = _VERSION, cpu = cpu.model, cores = cpu.cores, features = json.array(features(cpu)),
    kernels = core.isa(), threads = core.threads(),
    -- what products of numbers of up to 8 and of up to 16 significant bits are computed in
    compute = json.object({ "bits8", "bits16" },
      { bits8 = core.compute("FP(4,3,4)", "FP(4,3,4)"), bits16 = core.compute("FP(6,9,0)", "FP(4,3,4)") }),
    backends = json.array(core.backends()), devices = json.array(devices), cuda = cuda.libraries,
    models = json.array(script.models()), datasets = json.object({ "cifar10", "cifar100", "imagenet" }, sets),
    missing = json.array(missing),
  })
end

local function text(t)
  local lines = {}
  local function out(name, format, ...) lines[#lines + 1] = ("%-10s "):format(name) .. format:format(...) end
  out("mptl", "%s, %s", t.version, t.lua)
  out("processor", "%s, %d cores", t.cpu, t.cores)
  out("features", "%s", table.concat(t.features, " "))
  out("kernels", "%s", t.kernels)
  out("products", "in %s up to 8 significant bits, in %s up to 16, in f32 beyond", t.compute.bits8, t.compute.bits16)
  out("threads", "%d", t.threads)
  for _, b in ipairs(t.backends) do
    out("backend", "%s, %s %s", b.name, b.library, b.version)
  end
  if t.cuda then out("backend", "cuda, %s", t.cuda) end
  for _, device in ipairs(t.devices) do out("device", "%s", device) end
  out("models", "%s", table.concat(t.models, " "))
  for _, name in ipairs { "cifar10", "cifar100", "imagenet" } do
    if t.datasets[name] then out(name, "%s", t.datasets[name]) end
  end
  for _, what in ipairs(t.missing) do out("missing", "%s", what) end
  return table.concat(lines, "\n") .. "\n"
end

function M.run(args)
  local t = M.table(args.data)
  io.stdout:write(args.json and json.encode(t) .. "\n" or text(t))
  return 0
end

return M
