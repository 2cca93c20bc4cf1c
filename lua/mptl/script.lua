--- Model scripts: finding, loading and checking them, and the full configuration they give together with the command line.
-- @usage
-- local cfg = script.configure("resnet18_cifar.lua", { batch = 64 })   -- fields of the script, the given ones win
-- local graph = script.record(cfg)
-- local plan = script.plan(cfg, graph)
local lfs = require "lfs"
local data = require "mptl.data"
local json = require "mptl.json"
local misuse = require "mptl.misuse"
local mptl = require "mptl"
local nn = require "mptl.nn"
local options = require "mptl.options"
local precision = require "mptl.precision"

local M = {}

-- What holds where neither script nor command line says anything.
local defaults = {
  dataset = "cifar10", width = 1, batch = 128, epochs = 200, seed = 1, rounding = "nearest_even",
  storage = "packed", compute = "auto", on_bad_image = "stop",
  device = "auto", quiet = false,
}

-- --quick: what it sets, where the command line says nothing; the side and the batch to which it makes larger ones small,
-- the batch so that few images are enough steps.
local quick = { dataset = "synthetic", width = 0.25, epochs = 6, limit_train = 4096, limit_test = 1024 }
local quick_side, quick_batch = 64, 128

-- Fields of a script besides the options.
local objects = { "model", "optimizer", "schedule", "loss_scale", "precision", "name", "classes", "input" }

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
  local accepted = table.move(objects, 1, #objects, 1, {})
  for _, row in ipairs(options.rows) do
    if row.script ~= false then accepted[#accepted + 1] = row.name end
  end
  local known = {}
  for _, field in ipairs(accepted) do known[field] = true end
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

-- A copy with the same metatable and one field replaced.
local function with_field(object, field, value)
  local copy = setmetatable({}, getmetatable(object))
  for k, v in pairs(object) do copy[k] = v end
  copy[field] = value
  return copy
end

local policy_options = { "ratio", "k", "threshold", "formats" }

-- The script's policy, or the named one, with the options of the command line.
local function choose_policy(fields, args, cfg)
  local name = args.policy or fields.policy
  local policy = name and precision.named(name) or fields.precision or precision.fp32()
  local overrides = {}
  for _, option in ipairs(policy_options) do
    local from_script = fields[option]
    -- another policy than the script's, by name, keeps the script's formats, and the options that it has by default itself: the
    -- baselines do not promote unless they are told to. What a policy's file itself says, holds
    local own, in_file = policy.options[option] ~= nil, name and name:match "%.lua$"
    local keeps = option == "formats" and not (own and in_file) or own and not in_file
    if from_script == nil and name and fields.precision and keeps then from_script = fields.precision.options[option] end
    if from_script ~= nil and precision.accepts(policy, option) then overrides[option] = from_script end
    if args[option] ~= nil then
      -- formats and threshold are harmless where nothing is low: a list of runs may give them for all
      if precision.accepts(policy, option) then
        overrides[option] = args[option]
      elseif policy.name ~= "fp32" and policy.name ~= "uniform" then
        misuse.usage("--%s: the policy %s has no %s, it has %s", option, policy.name, option, table.concat(policy.accepted, ", "))
      end
    end
  end
  local seed = args.policy_seed or fields.policy_seed
  if args.policy_seed and not precision.accepts(policy, "seed") then
    misuse.usage("--policy-seed: the policy %s has no seed", policy.name)
  end
  if precision.accepts(policy, "seed") and (seed or not policy.options.seed) then overrides.seed = seed or cfg.seed end
  local ok, result = pcall(precision.with, policy, overrides)
  if ok then return result end
  misuse.usage("%s", misuse.text(result))
end

-- Shape of the images and number of classes: the data set's (of synthetic, the script's own data set's), unless the script says.
local function choose_shape(fields, args, cfg)
  local own = cfg.dataset == "synthetic" and fields.dataset or nil
  local input, classes = data.shape(own or cfg.dataset, not own and cfg.data, not own and cfg.image_size or nil)
  if own and not cfg.image_size and args.quick and input[2] > quick_side then cfg.image_size = quick_side end
  if own and cfg.image_size then input = { 3, cfg.image_size, cfg.image_size } end
  if not args.image_size then input = fields.input or input end
  cfg.input, cfg.classes = input, fields.classes or classes
end

--- The full configuration of a loaded script.
-- @param fields what M.load returned
-- @param args table of options by name, which win; nil where not given
-- @return the configuration: every option, name, path, classes, input, model, optimizer, schedule, loss_scale, precision
function M.resolve(fields, args)
  local cfg = { args = args }
  for _, row in ipairs(options.rows) do
    local name = row.name
    local value = args[name]
    if value == nil and args.quick then value = quick[name] end
    if value == nil then value = fields[name] end
    if value == nil then value = defaults[name] end
    cfg[name] = value
  end
  for _, name in ipairs(objects) do cfg[name] = fields[name] end
  cfg.path = fields.path
  choose_shape(fields, args, cfg)
  cfg.optimizer = fields.optimizer or (mptl.optim and mptl.optim.sgd { lr = 0.1, momentum = 0.9, weight_decay = 5e-4 })
  cfg.schedule = fields.schedule or (mptl.schedule and mptl.schedule.cosine {})
  cfg.loss_scale = fields.loss_scale or (mptl.loss_scale and mptl.loss_scale.dynamic {})
  if cfg.optimizer and cfg.lr then cfg.optimizer = with_field(cfg.optimizer, "lr", cfg.lr) end
  if args.quick and not args.batch and cfg.batch > quick_batch then
    -- the learning rate goes with the batch (Goyal and others, "Accurate, large minibatch SGD", 2017)
    if cfg.optimizer and not args.lr then
      cfg.optimizer = with_field(cfg.optimizer, "lr", cfg.optimizer.lr * quick_batch / cfg.batch)
    end
    cfg.batch = quick_batch
  end
  cfg.lr = cfg.optimizer and cfg.optimizer.lr
  cfg.precision = choose_policy(fields, args, cfg)
  cfg.policy = cfg.precision.name
  for _, option in ipairs(policy_options) do cfg[option] = cfg.precision.options[option] end
  cfg.formats, cfg.policy_seed = cfg.precision.formats, cfg.precision.options.seed
  if not cfg.json then cfg.json = false end
  return cfg
end

--- Loads and resolves.
-- @param name of the script
-- @param args table of options
-- @return the configuration
function M.configure(name, args)
  return M.resolve(M.load(name), args or {})
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

-- The fields of a table that JSON can hold, functions left out.
local function plain(value)
  if type(value) ~= "table" then return type(value) ~= "function" and type(value) ~= "userdata" and value or nil end
  local copy = {}
  for k, v in pairs(value) do copy[k] = plain(v) end
  return copy
end

--- Every setting of a configuration, for config.json.
-- @param cfg the configuration
-- @return a table that mptl.json encodes in a fixed order
function M.settings(cfg)
  local order = { "script", "path", "version", "classes", "input" }
  local result = { script = cfg.name, path = cfg.path, version = mptl.version, classes = cfg.classes, input = cfg.input }
  for _, name in ipairs(options.names) do
    order[#order + 1] = name
    result[name] = cfg[name]
  end
  for _, name in ipairs { "optimizer", "schedule", "loss_scale" } do
    order[#order + 1] = name
    result[name] = plain(cfg[name])
  end
  order[#order + 1] = "candidates"
  result.candidates = cfg.precision.candidates
  return json.object(order, result)
end

return M
