--- Modules: parts of a network, as in PyTorch. A module has a function forward, from symbolic
-- values to a symbolic value. Modules in its fields, and in plain lists in its fields, are its
-- children and are named after the fields. Modules hold no tensors; the engine does.
local misuse = require "mptl.misuse"
local Value = require "mptl.nn.value"

local Module = {}

local base = {} -- methods of every module

-- module -> names of the fields with its children, in the order of assignment
local order = setmetatable({}, { __mode = "k" })

--- Whether a value is a module.
-- @param x any value
-- @return true or false
function Module.is(x)
  return type(x) == "table" and order[x] ~= nil
end

local function is_list(x)
  return type(x) == "table" and getmetatable(x) == nil and Module.is(x[1])
end

-- Names of the fields with children, in the order of assignment. Fields that held something else
-- when they were first assigned come last, in alphabetical order.
local function child_fields(module)
  local keys, seen, late = {}, {}, {}
  for _, key in ipairs(order[module]) do
    keys[#keys + 1], seen[key] = key, true
  end
  for key, value in next, module do
    if not seen[key] and (Module.is(value) or is_list(value)) then late[#late + 1] = key end
  end
  table.sort(late, function(a, b) return tostring(a) < tostring(b) end)
  return table.move(late, 1, #late, #keys + 1, keys)
end

--- Iterates over the children, in the order of assignment. Elements of lists have numbers from 0,
-- as in PyTorch.
-- @param module the module
-- @return an iterator of name, child
-- @usage for name, child in nn.children(net) do print(name, child) end
function Module.children(module)
  return coroutine.wrap(function()
    for _, key in ipairs(child_fields(module)) do
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

--- The text in parentheses after the class when a module is printed; for layers, their options.
-- @return text
function base.describe()
  return ""
end

--- The computation of a module, which every class must define.
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

--- A new class of modules. Define its functions init, which gets the arguments of the class, and
-- forward.
-- @param name name of the class, for printing and errors
-- @return the class; a call of it makes a module
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
