--- mptl doctor: reports what this machine offers, and what is missing.
local core = require "mptl.core"
local data = require "mptl.data"
local json = require "mptl.json"
local mptl = require "mptl"
local script = require "mptl.script"
local threads = require "mptl.threads"

local M = {
  name = "doctor",
  summary = "report what this machine offers (processor, libraries, data sets) and what is missing",
}

local names = { "cifar10", "cifar100", "imagenet" } -- data sets

function M.configure(parser)
  parser:option("--data", "where to look for data sets (default: $MPTL_DATA, $XDG_DATA_HOME/mptl)")
    :argname("DIR")
  parser:flag("--json", "print JSON")
end

local function features(cpu)
  local list = {}
  for name, has in pairs(cpu.features) do
    if has then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

local nvidia = { cuda = true, cudart = true, cublasLt = true, nvrtc = true }

-- The files of NVIDIA's libraries that the plug-in has loaded: a machine may have several of each.
local function loaded_libraries()
  local list, seen = {}, {}
  local maps <close> = io.open "/proc/self/maps"
  for line in (maps and maps:lines() or function() end) do
    local path, name = line:match "(/.*/lib([%a_]+)%.so[%d.]*)$"
    local is_one = name and (nvidia[name] or name:find "^cudnn")
    if is_one and not seen[path] then list[#list + 1], seen[path] = path, true end
  end
  table.sort(list)
  return list
end

-- Where data sets are, by name; adds the others to missing.
local function find_data_sets(dir, missing)
  local sets, folders = {}, data.places(dir)
  for _, name in ipairs(names) do
    -- A directory that cannot be read does not hide the other data sets.
    local ok, found = pcall(data.find, name, dir)
    sets[name] = ok and found or nil
    if not sets[name] then missing[#missing + 1] = ("data set %s: not in %s"):format(name, table.concat(folders, ", ")) end
  end
  return sets
end

--- What `mptl doctor` reports, as a table.
-- @param dir folder to look for data sets in, or nil
-- @return a table that mptl.json encodes in a fixed order
function M.table(dir)
  local cpu, missing = core.cpu(), {}
  local sets = find_data_sets(dir, missing)
  local processors = core.processors()
  processors.decides = threads.decider(processors)
  local cuda, devices = core.cuda(), { "cpu" }
  for i, text in ipairs(cuda.devices) do devices[i + 1] = ("cuda:%d, %s"):format(i - 1, text) end
  if cuda.missing then missing[#missing + 1] = "device cuda: " .. cuda.missing end
  if #script.models() == 0 then missing[#missing + 1] = "model scripts: none installed" end
  local order = {
    "version", "lua", "cpu", "cores", "features", "kernels", "instruction_sets", "compute", "threads", "processors", "backends",
    "cuda", "libraries", "devices", "models", "datasets", "missing",
  }
  return json.object(order, {
    version = mptl.version, lua = _VERSION, cpu = cpu.model, cores = processors.online,
    features = json.array(features(cpu)),
    kernels = core.isa(), instruction_sets = json.array(core.isas()), threads = core.threads(),
    processors = json.object({ "online", "allowed", "quota", "quota_file", "usable", "asked", "decides" }, processors),
    -- the types of products of numbers with up to 8, and with up to 16 significant bits
    compute = json.object({ "bits8", "bits16" },
      { bits8 = core.compute("FP(4,3,4)", "FP(4,3,4)"), bits16 = core.compute("FP(6,9,0)", "FP(4,3,4)") }),
    backends = json.array(core.backends()), devices = json.array(devices), cuda = cuda.libraries,
    libraries = json.array(loaded_libraries()),
    models = json.array(script.models()), datasets = json.object(names, sets),
    missing = json.array(missing),
  })
end

local function text(t)
  local lines = {}
  local function out(name, format, ...) lines[#lines + 1] = ("%-10s "):format(name) .. format:format(...) end
  out("mptl", "%s, %s", t.version, t.lua)
  out("processor", "%s, %d cores", t.cpu, t.cores)
  out("features", "%s", table.concat(t.features, " "))
  out("kernels", "%s%s; here are %s", t.kernels, (os.getenv "MPTL_ISA" or "") ~= "" and " by MPTL_ISA" or "",
    table.concat(t.instruction_sets, ", "))
  out("products", "in %s up to 8 significant bits, in %s up to 16, in f32 beyond", t.compute.bits8, t.compute.bits16)
  out("threads", "%d, by %s", t.threads, (select(2, threads.decider(t.processors))))
  for _, b in ipairs(t.backends) do
    out("backend", "%s, %s %s", b.name, b.library, b.version)
  end
  if t.cuda then out("backend", "cuda, %s", t.cuda) end
  for _, path in ipairs(t.libraries) do out("library", "%s", path) end
  for _, device in ipairs(t.devices) do out("device", "%s", device) end
  out("models", "%s", table.concat(t.models, " "))
  for _, name in ipairs(names) do
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
