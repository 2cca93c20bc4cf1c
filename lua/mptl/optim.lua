--- Optimizers, as settings: the arithmetic is in the engine (kernels/optimizers.h), on the binary32 masters. What an optimizer is
-- called, keeps and takes is a row of the engine's table (core.optimizers).
local core = require "mptl.core"
local misuse = require "mptl.misuse"

local M = {}

local Optimizer = {}
Optimizer.__index = Optimizer

local rows = {}
for _, row in ipairs(core.optimizers()) do rows[row.name] = row end

local function check_number(what, setting, value)
  if type(value) == "number" and value >= setting.least and value < setting.most then return value end
  misuse.raise("%s: %s = %s, must be a number of at least %g%s", what, setting.name, tostring(value), setting.least,
    setting.most < math.huge and (" and below %g"):format(setting.most) or "")
end

local function names_of(row, ...)
  local names = { ... }
  for _, setting in ipairs(row.settings) do names[#names + 1] = setting.name end
  table.sort(names)
  return names
end

-- Whether a parameter belongs to a group: by its name, by its dimensions, or as a function says.
local function belongs(params, parameter)
  if params == "vectors" then return #parameter.dims == 1 end
  if type(params) == "function" then return params(parameter.name, parameter.dims) end
  for _, pattern in ipairs(params) do
    if parameter.name:find(pattern) then return true end
  end
  return false
end

local function check_params(what, params)
  local list = type(params) == "table" and #params > 0
  for _, pattern in ipairs(list and params or {}) do
    list = list and type(pattern) == "string" and pcall(string.find, "", pattern)
  end
  if params == "vectors" or type(params) == "function" or list then return params end
  misuse.raise('%s: params = %s, must be "vectors", a list of Lua patterns of names, or a function(name, dims)', what,
    tostring(params))
end

local function check_groups(what, row, groups)
  if groups == nil then return nil end
  if type(groups) ~= "table" or #groups == 0 then
    misuse.raise("%s: groups = %s, must be a list of {params = ..., setting = value, ...}", what, tostring(groups))
  end
  local checked = {}
  for i, group in ipairs(groups) do
    local where = ("%s: groups[%d]"):format(what, i)
    if type(group) ~= "table" then misuse.raise("%s = %s, must be a table", where, tostring(group)) end
    misuse.check_fields(where, group, names_of(row, "params"))
    checked[i] = { params = check_params(where, group.params) }
    for _, setting in ipairs(row.settings) do
      local value = group[setting.name]
      if value ~= nil then checked[i][setting.name] = check_number(where, setting, value) end
    end
  end
  return checked
end

-- An optimizer of a row. groups and clip_norm are fields only where they are given.
local function create(name, settings)
  local row, what = rows[name], "optim." .. name
  settings = settings or {}
  misuse.check_fields(what, settings, names_of(row, "groups", "clip_norm"))
  local self = setmetatable({ name = name }, Optimizer)
  for _, setting in ipairs(row.settings) do
    local value = settings[setting.name]
    if value == nil then value = setting.usual end
    self[setting.name] = check_number(what, setting, value)
  end
  self.groups = check_groups(what, row, settings.groups)
  if settings.clip_norm ~= nil then
    self.clip_norm = check_number(what, { name = "clip_norm", least = 0, most = math.huge }, settings.clip_norm)
  end
  return self
end

--- Stochastic gradient descent with momentum, not Nesterov: g = grad + weight_decay p; buf = momentum buf + g (first update: g);
-- p -= lr buf. Every parameter is decayed, except those of groups that say otherwise.
-- @param settings {lr = 0.1, momentum = 0.9, weight_decay = 5e-4}: these are the defaults. And, of every optimizer:
--   clip_norm = scale gradients down to this Euclidean norm, of all parameters together, where theirs is larger;
--   groups = list of {params = which, setting = another value for them, ...}; a parameter belongs to the first group that has
--   it. params is "vectors" (biases, and the weights of norms), a list of Lua patterns of names, or a function(name, dims). A
--   schedule multiplies each group's lr alike
-- @return the optimizer
-- @usage mptl.optim.sgd{ lr = 0.05, groups = { { params = "vectors", weight_decay = 0 } } }
function M.sgd(settings)
  return create("sgd", settings)
end

--- AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019), as torch.optim.AdamW has it, with bias
-- correction. Every parameter is decayed, except those of groups that say otherwise.
-- @param settings {lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01}: these are the defaults; and
--   clip_norm and groups, as optim.sgd
-- @return the optimizer
-- @usage mptl.optim.adamw{ lr = 3e-4, weight_decay = 0.05, groups = { { params = "vectors", weight_decay = 0 } } }
function M.adamw(settings)
  return create("adamw", settings)
end

--- The value if it is an optimizer, else an error.
-- @param value what a script gave
-- @return the optimizer
function M.check(value)
  if getmetatable(value) == Optimizer then return value end
  local names = {}
  for i, name in ipairs(misuse.names(rows)) do names[i] = "mptl.optim." .. name end
  misuse.raise("optimizer: %s, must be made by %s", type(value), table.concat(names, ", "))
end

--- What an optimizer keeps for each trained parameter.
-- @param name the optimizer's
-- @return list of names of arrays
function M.states(name)
  return rows[name].states
end

--- Which group each parameter belongs to.
-- @param graph the engine's graph
-- @return table by name; nil where it is 0, the optimizer's own settings
function Optimizer:parameter_groups(graph)
  local groups = {}
  for _, p in ipairs(graph:parameters()) do
    for i, group in ipairs(not p.buffer and self.groups or {}) do
      if not groups[p.name] and belongs(group.params, p) then groups[p.name] = i end
    end
  end
  return groups
end

--- The settings of an update, as the engine takes them.
-- @param lr the learning rate, where another than the optimizer's own
-- @return a table
function Optimizer:update(lr)
  local row = rows[self.name]
  local update = { clip_norm = self.clip_norm }
  for _, setting in ipairs(row.settings) do update[setting.name] = self[setting.name] end
  update.lr = lr or self.lr
  for i, group in ipairs(self.groups or {}) do
    update.groups = update.groups or {}
    local own = {}
    for _, setting in ipairs(row.settings) do own[setting.name] = group[setting.name] end
    if own.lr then own.lr = self.lr > 0 and own.lr * (update.lr / self.lr) or own.lr end
    update.groups[i] = own
  end
  return update
end

return M
