--- help() of the interactive Lua, made from the doc comments of the sources and the usage lines of
-- modules.
local M = {}

local overview = [[
mptl        the library: mptl.nn, mptl.precision, mptl.optim, mptl.schedule, mptl.loss_scale, mptl.script
nn          layers, modules, networks                        nn.Sequential{ nn.Flatten(), nn.Linear{ 3072, 10 } }
precision   policies                                         precision.demotion{ ratio = 0.5 }
mptl.format number formats                                   mptl.format "FP(4,3,4)":list()
mptl.round  rounding, with statistics                        mptl.round({ 1.06, 470 }, "FP(4,3,4)")
core        the engine in C
open(NAME)  opens a model script: sets script, graph, plan   open "resnet18_cifar"
help(x)     about a module or a function                     help(nn)  help(precision.demotion)

A session:
  open "resnet18_cifar"
  plan.graph:ratio_lo()
  for _, g in ipairs(plan.graph:groups()) do print(g) end
  precision.plan(precision.operator(), graph, 128).graph:ratios()]]

-- The doc comment above a line of a file: list of lines without dashes; nil when there is none.
local function comment_above(path, line)
  local lines = {}
  local file = io.open(path)
  if not file then return nil end
  for text in file:lines() do
    lines[#lines + 1] = text
    if #lines == line then break end
  end
  file:close()
  local first = line - 1
  while first > 0 and lines[first]:match("^%s*%-%-") do first = first - 1 end
  local doc = {}
  for i = first + 1, line - 1 do doc[#doc + 1] = (lines[i]:gsub("^%s*%-%-%-?%s?", "")) end
  return #doc > 0 and doc or nil
end

local function function_doc(f)
  local info = debug.getinfo(f, "S")
  if info.what == "C" or info.source:sub(1, 1) ~= "@" then return nil end
  return comment_above(info.source:sub(2), info.linedefined)
end

-- The documentation of a module's field: list of lines, or nil.
local function entry_doc(module, name)
  local value = module[name]
  local usage = type(module.help) == "table" and module.help[name]
  if usage then return { usage } end
  if type(value) == "table" and value.usage then return { value.usage } end
  if type(value) == "function" then return function_doc(value) end
end

-- The first sentence of a documentation.
local function summary(doc)
  local lines = {}
  for _, line in ipairs(doc) do
    if line == "" or line:find "^@" then break end
    lines[#lines + 1] = line
  end
  local text = table.concat(lines, " ")
  return text:match "^(.-%.)%s" or text ~= "" and text or doc[1]
end

local function module_text(module)
  local names, lines, width = {}, {}, 0
  for name in pairs(module) do
    if type(name) == "string" and name ~= "help" and name:sub(1, 1) ~= "_" then
      names[#names + 1] = name
      width = math.max(width, #name)
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local doc = entry_doc(module, name)
    lines[#lines + 1] = ("%-" .. width .. "s  %s"):format(name, doc and summary(doc) or type(module[name]))
  end
  return table.concat(lines, "\n")
end

-- The loaded module that has x as a field, and the field's name.
local function owner(x)
  for name, module in pairs(package.loaded) do
    if name:match("^mptl") and type(module) == "table" then
      for field, value in pairs(module) do
        if value == x and type(field) == "string" then return module, field end
      end
    end
  end
end

--- The help text about a value.
-- @param x a module, a function or a class of layers; nil for the overview
-- @return text of one or more lines
function M.text(x)
  if x == nil then return overview end
  local module, field = owner(x)
  local doc = module and entry_doc(module, field) or (type(x) == "function" and function_doc(x))
  if doc then return table.concat(doc, "\n") end
  if type(x) == "table" then return module_text(x) end
  return ("no help on this %s; help() lists what there is"):format(type(x))
end

return M
