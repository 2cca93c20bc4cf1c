--- Model scripts: finding, loading and checking them, recording their models.
-- @usage
-- local cfg = script.configure("resnet18_cifar.lua", { batch = 64 })   -- fields of the script, the given ones win
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

--- The file of a script: a path, or a name in the models directory, with or without ".lua".
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

--- Loads a script and checks its fields.
-- @param name a path or a model's name
-- @return the script's table, in it: path, and name (the file's, unless the script gives one)
function M.load(name)
  local path = M.find(name)
  local chunk, message = loadfile(path, "t")
  if not chunk then error(message, 0) end
  local fields = chunk()
  if type(fields) ~= "table" then
    error(("%s: returned %s, must return a table { model = ..., dataset = ..., ... }"):format(path,
      fields == nil and "nothing" or misuse.text(fields)), 0)
  end
  local accepted, known = {}, {}
  for _, names in ipairs { configuration.objects, options.select(function(row) return row.script ~= false end) } do
    for _, field in ipairs(names) do accepted[#accepted + 1], known[field] = field, true end
  end
  local result = {}
  for field, value in pairs(fields) do
    if not known[field] then
      error(("%s: unknown field %s%s, accepted are %s"):format(path, misuse.text(field), misuse.suggest(field, accepted),
        table.concat(accepted, ", ")), 0)
    end
    local row = options.by_name[field]
    if row then
      local checked, accepts = options.check(row, value)
      if checked == nil then
        error(("%s: %s: %s, accepted are %s"):format(path, field, misuse.text(value), accepts), 0)
      end
      value = checked
    end
    result[field] = value
  end
  check_model(path, result.model)
  if result.precision ~= nil and not precision.is_policy(result.precision) then
    error(("%s: precision: %s, must be a policy such as mptl.precision.demotion{}"):format(path, type(result.precision)), 0)
  end
  for object, part in pairs { optimizer = "optim", schedule = "schedule", loss_scale = "loss_scale" } do
    if result[object] ~= nil then
      local ok, mistake = pcall(mptl[part].check, result[object])
      if not ok then error(("%s: %s"):format(path, mistake), 0) end
    end
  end
  result.path, result.name = path, result.name or path:match("([^/]+)$"):gsub("%.lua$", "")
  return result
end

--- The configuration of a script, which opens the device.
-- @param name of the script
-- @param args table of options
-- @return the configuration, to be read only
function M.configure(name, args)
  return configuration.make(M.load(name), args or {})
end

--- Raises what is wrong in a script or in the options for it, without opening the device.
-- @param name of the script
-- @param args table of options
function M.check(name, args)
  configuration.check(M.load(name), args)
end

--- Records the script's model.
-- @param cfg the configuration
-- @return the engine's graph
function M.record(cfg)
  local model = cfg.model
  if type(model) == "function" then
    local info = debug.getinfo(model, "u")
    if info.nparams < 2 then
      model = model(cfg)
      if not nn.is_module(model) and type(model) ~= "function" then
        error(("%s: model: function (cfg) returned a %s, must return a module or a function (x, cfg)"):format(cfg.path,
          type(model)), 0)
      end
    end
  end
  return nn.record(model, { input = cfg.input, classes = cfg.classes, cfg = cfg })
end

--- Applies the configuration's policy.
-- @param cfg the configuration
-- @param graph the engine's graph
-- @return as precision.plan
function M.plan(cfg, graph)
  return precision.plan(cfg.precision, graph, cfg.batch)
end

return M
