--- Model scripts: finding, loading and checking them, recording their networks as graphs.
-- @usage
-- local cfg = script.configure("resnet18_cifar.lua", { batch = 64 }) -- options win over the script
-- local graph = script.record(cfg)
-- local plan = script.plan(cfg, graph)
local configuration = require "mptl.configuration"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local mptl = require "mptl"
local nn = require "mptl.nn"
local options = require "mptl.options"
local precision = require "mptl.precision"

local M = {}

local function models_dir()
  return MPTL_MODELS or (os.getenv "MPTL_ROOT" and os.getenv "MPTL_ROOT" .. "/models") or nil
end

local function is_file(path)
  return lfs.attributes(path, "mode") == "file"
end

--- Names of the installed model scripts.
-- @return sorted list, without ".lua"
function M.models()
  local names, dir = {}, models_dir()
  if dir and lfs.attributes(dir, "mode") == "directory" then
    for file in lfs.dir(dir) do
      if file:match("%.lua$") then names[#names + 1] = file:sub(1, -5) end
    end
  end
  table.sort(names)
  return names
end

--- Finds the file of a script: a path, or a name in the models directory, with or without ".lua".
-- @param name as on the command line
-- @return its path
function M.find(name)
  local dir = models_dir()
  local tries = { name, name .. ".lua" }
  if dir and not name:find("/", 1, true) then
    tries[3], tries[4] = dir .. "/" .. name, dir .. "/" .. name .. ".lua"
  end
  for _, path in ipairs(tries) do
    if is_file(path) then return path end
  end
  local models = M.models()
  local what = lfs.attributes(name, "mode") and "not a file" or "no such file"
  misuse.usage("script %s: %s%s%s", name, what, misuse.suggest(name:gsub("%.lua$", ""), models),
    #models > 0 and "; accepted are a path or one of " .. table.concat(models, ", ") or "")
end

local function check_model(path, model)
  if type(model) ~= "function" and not nn.is_module(model) then
    error(("%s: model: %s, must be a function (cfg) that returns a module, a function (x, cfg), or a module"):format(path,
      model == nil and "missing" or type(model)), 0)
  end
end

-- Runs a script; returns its table.
local function run(path)
  local chunk, message = loadfile(path, "t")
  if not chunk then error(message, 0) end
  local fields = chunk()
  if type(fields) == "table" then return fields end
  error(("%s: returned %s, must return a table { model = ..., dataset = ..., ... }"):format(path,
    fields == nil and "nothing" or misuse.text(fields)), 0)
end

-- The value of a field that is an option, checked.
local function checked(path, field, value)
  local row = options.by_name[field]
  if not row then return value end
  local result, accepts = options.check(row, value)
  if result ~= nil then return result end
  error(("%s: %s: %s, accepted are %s"):format(path, field, misuse.text(value), accepts), 0)
end

local function check_objects(path, fields)
  check_model(path, fields.model)
  if fields.loss ~= nil and type(fields.loss) ~= "function" then
    error(("%s: loss: %s, must be a function such as mptl.nn.cross_entropy"):format(path, type(fields.loss)), 0)
  end
  if fields.precision ~= nil and not precision.is_policy(fields.precision) then
    error(("%s: precision: %s, must be a policy such as mptl.precision.demotion{}"):format(path, type(fields.precision)), 0)
  end
  for object, part in pairs { optimizer = "optim", schedule = "schedule", loss_scale = "loss_scale" } do
    if fields[object] ~= nil then
      local ok, mistake = pcall(mptl[part].check, fields[object])
      if not ok then error(("%s: %s"):format(path, mistake), 0) end
    end
  end
end

-- Names of the fields that a script may have; and the same as a set.
local function accepted_fields()
  local accepted, known = {}, {}
  for _, names in ipairs { configuration.objects, options.select(function(row) return row.script ~= false end) } do
    for _, field in ipairs(names) do accepted[#accepted + 1], known[field] = field, true end
  end
  return accepted, known
end

--- Loads a script and checks its fields.
-- @param name a path, or the name of an installed script
-- @return the script's table, with the fields path and name (the file's name, unless the script
--   gives one)
function M.load(name)
  local path = M.find(name)
  local accepted, known = accepted_fields()
  local result = {}
  for field, value in pairs(run(path)) do
    if not known[field] then
      error(("%s: unknown field %s%s, accepted are %s"):format(path, misuse.text(field), misuse.suggest(field, accepted),
        table.concat(accepted, ", ")), 0)
    end
    result[field] = checked(path, field, value)
  end
  check_objects(path, result)
  result.path, result.name = path, result.name or path:match("([^/]+)$"):gsub("%.lua$", "")
  return result
end

--- The configuration of a script. Opens the device.
-- @param name the script
-- @param args table of options
-- @return the configuration, which is read-only
function M.configure(name, args)
  return configuration.make(M.load(name), args or {})
end

--- Raises an error when a script or the options for it are wrong. Does not open the device.
-- @param name the script
-- @param args table of options
function M.check(name, args)
  configuration.check(M.load(name), args)
end

--- Records the script's network.
-- @param cfg the configuration
-- @return the engine's graph
function M.record(cfg)
  local network = cfg.model
  if type(network) == "function" and debug.getinfo(network, "u").nparams < 2 then
    network = network(cfg)
    if not nn.is_module(network) and type(network) ~= "function" then
      error(("%s: model: function (cfg) returned a %s, must return a module or a function (x, cfg)"):format(cfg.path,
        type(network)), 0)
    end
  end
  return nn.record(network, { input = cfg.input, classes = cfg.classes, loss = cfg.loss, cfg = cfg })
end

--- Applies the configuration's policy.
-- @param cfg the configuration
-- @param graph the engine's graph
-- @return the plan (precision.plan)
function M.plan(cfg, graph)
  return precision.plan(cfg.precision, graph, cfg.batch)
end

return M
