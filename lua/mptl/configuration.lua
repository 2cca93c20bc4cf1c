--- The configuration of a run: everything that is decided before it, from a script's fields and the
-- given options. It is made once, here, and read-only afterwards: to assign a field, or to read one
-- that it does not have, is an error.
local core = require "mptl.core"
local data = require "mptl.data"
local json = require "mptl.json"
local loss_scale = require "mptl.loss_scale"
local misuse = require "mptl.misuse"
local mptl = require "mptl"
local optim = require "mptl.optim"
local options = require "mptl.options"
local precision = require "mptl.precision"
local schedule = require "mptl.schedule"
local show = require "mptl.show"

local M = {}

--- Fields of a script besides the options.
M.objects = {
  "model", "loss", "optimizer", "schedule", "loss_scale", "precision", "name", "classes", "input",
}

-- Settings that are no options: before the options in config.json, and behind them. results means
-- the same as in options.rows.
local before = {
  { "script" }, { "path", results = false }, { "version", results = false }, { "classes" }, { "input" },
}
local behind = { { "optimizer" }, { "schedule" }, { "loss_scale" }, { "candidates" } }

--- Names of all settings, in the order of config.json.
M.settings_names = {}

local free = {} -- names of the settings that do not change results
for _, rows in ipairs { before, options.rows, behind } do
  for _, row in ipairs(rows) do
    M.settings_names[#M.settings_names + 1] = row[1]
    free[row[1]] = row.results == false or nil
  end
end

-- How to change a field, for messages.
local way = "options of script.configure and fields of the script"

-- --quick reduces images and batches to these sizes. Smaller batches make enough steps of few
-- images.
local quick_side, quick_batch = 64, 128

-- A copy with the same metatable and one field replaced.
local function with_field(object, field, value)
  local copy = setmetatable({}, getmetatable(object))
  for k, v in pairs(object) do copy[k] = v end
  copy[field] = value
  return copy
end

local policy_options = options.select(function(row) return row.policy end)

-- The script's policy, or the named one, with the options of the command line.
local function choose_policy(fields, args, cfg)
  local name = args.policy or fields.policy
  local policy = name and precision.named(name) or fields.precision or precision.fp32()
  local overrides = {}
  for _, option in ipairs(policy_options) do
    local from_script = fields[option]
    -- A policy given by name replaces the script's but takes over its formats, and those of its
    -- options that the named policy has a default for: so operator, amp and uniform_low promote
    -- only when told to. Options that a policy's file sets itself stay.
    local own, in_file = policy.options[option] ~= nil, name and name:match "%.lua$"
    local keeps = option == "formats" and not (own and in_file) or own and not in_file
    if from_script == nil and name and fields.precision and keeps then
      from_script = fields.precision.options[option]
    end
    if from_script ~= nil and precision.accepts(policy, option) then overrides[option] = from_script end
    if args[option] ~= nil then
      -- fp32 and uniform ignore these options, so that a sweep may set them for all its runs.
      if precision.accepts(policy, option) then
        overrides[option] = args[option]
      elseif policy.name ~= "fp32" and policy.name ~= "uniform" then
        misuse.usage("--%s: the policy %s has no %s, it has %s", option, policy.name, option,
          table.concat(policy.accepted, ", "))
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

-- Sets the shape of the images and the number of classes: the script's, else the data set's. When
-- synthetic images stand in for the script's data set, they have its shape.
local function choose_shape(fields, args, cfg)
  local own = cfg.dataset == "synthetic" and fields.dataset or nil
  local input, classes = data.shape(own or cfg.dataset, not own and cfg.data, not own and cfg.image_size or nil)
  if own and not cfg.image_size and args.quick and input[2] > quick_side then cfg.image_size = quick_side end
  if own and cfg.image_size then input = { 3, cfg.image_size, cfg.image_size } end
  if not args.image_size then input = fields.input or input end
  cfg.input, cfg.classes = input, fields.classes or classes
end

-- All values of a configuration, except that the device may still be "auto" or "cuda".
local function resolve(fields, args)
  local cfg = { path = fields.path }
  for _, row in ipairs(options.rows) do
    local value = args[row.name]
    if value == nil and args.quick then value = row.quick end
    if value == nil then value = fields[row.name] end
    if value == nil then value = row.default end
    cfg[row.name] = value
  end
  for _, name in ipairs(M.objects) do cfg[name] = fields[name] end
  choose_shape(fields, args, cfg)
  cfg.optimizer = fields.optimizer or optim.sgd { lr = 0.1, momentum = 0.9, weight_decay = 5e-4 }
  cfg.schedule = fields.schedule or schedule.cosine {}
  cfg.loss_scale = fields.loss_scale or loss_scale.dynamic {}
  if cfg.lr then cfg.optimizer = with_field(cfg.optimizer, "lr", cfg.lr) end
  if args.quick and not args.batch and cfg.batch > quick_batch then
    -- The learning rate is proportional to the batch size (Goyal and others, "Accurate, large
    -- minibatch SGD", 2017).
    if not args.lr then
      cfg.optimizer = with_field(cfg.optimizer, "lr", cfg.optimizer.lr * quick_batch / cfg.batch)
    end
    cfg.batch = quick_batch
  end
  cfg.lr = cfg.optimizer.lr
  cfg.precision = choose_policy(fields, args, cfg)
  cfg.policy = cfg.precision.name
  for _, option in ipairs(policy_options) do cfg[option] = cfg.precision.options[option] end
  cfg.formats, cfg.policy_seed = cfg.precision.formats, cfg.precision.options.seed
  return cfg
end

-- Opens a device; returns its full name, "cuda:0" for "cuda".
local function open_device(name)
  local ok, opened = pcall(core.device, name)
  if ok then return opened end
  misuse.usage("--%s", opened) -- "device cuda:1: there is ..."
end

-- The class of configurations. They can be iterated and shown as plain tables.
local function configuration_class()
  local fields, ways = { "path" }, {}
  for _, names in ipairs { options.names, M.objects } do
    table.move(names, 1, #names, #fields + 1, fields)
  end
  for _, name in ipairs(fields) do ways[name] = way end
  local mt = misuse.strict("configuration", {}, {}, fields, ways)
  local function copy(self)
    local fields_now = {}
    for name, value in next, misuse.values(self) do fields_now[name] = value end
    return fields_now
  end
  function mt.__pairs(self) return next, copy(self) end
  function mt.__tostring(self) return show.text(copy(self)) end
  return mt
end

local class = configuration_class()

--- Makes the configuration of a loaded script. It opens the device.
-- @param fields the result of script.load
-- @param args options by name, which win over the script; nil where not given
-- @return the configuration: every option, name, path, classes, input, model, optimizer, schedule,
--   loss_scale, precision
function M.make(fields, args)
  local values = resolve(fields, args)
  values.device = open_device(values.device)
  if type(values.input) == "table" then
    values.input = misuse.read_only("configuration.input", values.input, way)
  end
  return misuse.object(class, values)
end

--- Raises the errors that make would raise, but does not open the device: the run may be meant for
-- another machine.
-- @param fields the result of script.load
-- @param args options by name
function M.check(fields, args)
  resolve(fields, args)
end

-- A value that JSON can hold: tables without their functions.
local function plain(value)
  local kind = type(value)
  if kind == "function" or kind == "userdata" then return nil end
  if kind ~= "table" then return value end
  local copy = {}
  for k, v in pairs(value) do copy[k] = plain(v) end
  return copy
end

--- Every setting of a configuration, for config.json.
-- @param cfg the configuration
-- @return a table that mptl.json encodes in a fixed order
function M.settings(cfg)
  local result = { script = cfg.name, version = mptl.version, candidates = cfg.precision.candidates }
  for _, name in ipairs(M.settings_names) do
    if result[name] == nil then result[name] = plain(cfg[name]) end
  end
  return json.object(M.settings_names, result)
end

--- Whether another value of a setting changes results. Unknown settings do.
-- @param name name of the setting
-- @return true or false
function M.changes_results(name)
  return not free[name]
end

--- The settings that change results: a run and its continuation must agree on them.
-- @param settings the result of M.settings, or settings from a checkpoint
-- @return a table
function M.essential(settings)
  local result = {}
  for name, value in pairs(settings) do
    if M.changes_results(name) then result[name] = value end
  end
  return result
end

return M
