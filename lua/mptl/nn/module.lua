--- Modules: parts of a model, in PyTorch's manner.
-- A module has a forward function from symbolic values to a symbolic value; modules in its fields (or in plain lists in its
-- fields) are its children and are named by the fields. Modules hold no tensors: those are the engine's.
local misuse = require "mptl.misuse"
local Value = require "mptl.nn.value"

local Module = {}

local base = {} -- what every module has

-- instance -> its child fields in the order of their assignment
local order = setmetatable({}, { __mode = "k" })

--- Whether a thing is a module.
-- @param x the thing
-- @return true or false
function Module.is(x)
  return type(x) == "table" and order[x] ~= nil
end

local function is_list(x)
  return type(x) == "table" and getmetatable(x) == nil and Module.is(x[1])
end

--- Iterates over name, child in the order of assignment; lists of modules count from 0, as in PyTorch.
-- @param module the module
-- @return an iterator
function Module.children(module)
  local keys, seen, late = {}, {}, {}
  for _, key in ipairs(order[module]) do
    keys[#keys + 1], seen[key] = key, true
  end
  for key, value in next, module do -- fields that held something else when they were first assigned
    if not seen[key] and (Module.is(value) or is_list(value)) then late[#late + 1] = key end
  end
  table.sort(late, function(a, b) return tostring(a) < tostring(b) end)
  table.move(late, 1, #late, #keys + 1, keys)
  return coroutine.wrap(function()
    for _, key in ipairs(keys) do
      local value = rawget(module, key)
      if Module.is(value) then
        coroutine.yield(tostring(key), value)
      elseif is_list(value) then
        for i, child in ipairs(value) do
          if Module.is(child) then coroutine.yield(("%s.%d"):format(key, i - 1), child) end
        end
      end
    end
  end)
end

--- What a module shows in brackets behind its class; for the layers, their options.
-- @return a string
function base.describe()
  return ""
end

function base:forward()
  misuse.raise("%s: has no forward function", self.class_name)
end

local function assign(self, key, value)
  rawset(self, key, value)
  if Module.is(value) or is_list(value) then table.insert(order[self], key) end
end

local function to_string(self)
  local lines = {}
  for name, child in Module.children(self) do
    lines[#lines + 1] = ("  (%s): %s"):format(name, (tostring(child):gsub("\n", "\n  ")))
  end
  if #lines == 0 then return ("%s(%s)"):format(self.class_name, self:describe()) end
  return ("%s(\n%s\n)"):format(self.class_name, table.concat(lines, "\n"))
end

local function call(self, x, ...)
  return Value.check(self.class_name, x).recorder:run(self, x, ...)
end

--- A new class of modules. Give it `init` (called with what the class is called with) and `forward`.
-- @param name of the class, for printing and errors
-- @return the class; calling it makes a module
-- @usage local Double = nn.Module("Double")
-- function Double:init(width) self.fc = nn.Linear{ width, width } end
-- function Double:forward(x) return self.fc(x) + x end
-- local net = Double(8)
function Module.class(name)
  if type(name) ~= "string" then misuse.raise("nn.Module: %s, must be the name of the class", tostring(name)) end
  local class = setmetatable({ class_name = name }, { __index = base })
  local instances = { __index = class, __newindex = assign, __tostring = to_string, __call = call }
  getmetatable(class).__call = function(_, ...)
    local self = setmetatable({}, instances)
    order[self] = {}
    if class.init then class.init(self, ...) end
    return self
  end
  return class
end

return Module
