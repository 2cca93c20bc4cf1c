--- The different convolutions of models, as plain tables, and their plans for NVIDIA GPUs.
local Recorder = require "mptl.nn.recorder"
local lfs = require "lfs"
local script = require "mptl.script"

local M = {}

local function pair(value, default)
  if type(value) == "table" then return value[1], value[2] end
  return value or default, value or default
end

local function shape(batch, input, output, attributes)
  local kh, kw = pair(attributes.kernel)
  local sh, sw = pair(attributes.stride, 1)
  local ph, pw = pair(attributes.padding, 0)
  local dh, dw = pair(attributes.dilation, 1)
  local groups = attributes.groups or 1
  return { batch, input[1], input[2], input[3], output[1], output[2], output[3], kh, kw, sh, sw, ph, pw, dh, dw, groups }
end

--- Names of all scripts in models/, without the extension.
function M.models()
  local names = {}
  for file in lfs.dir(os.getenv "MPTL_ROOT" .. "/models") do
    names[#names + 1] = file:match "^(.+)%.lua$"
  end
  table.sort(names)
  return names
end

local rows = { conv2d = shape } -- by kind of operator
function rows.linear(batch, input, output) return { batch, input[1], input[2] or 1, input[3] or 1, output[1] } end

-- Adds those operators of a model, of some kinds, that have not been found yet.
local function add(found, seen, model, batch, kinds)
  local call = Recorder.call
  function Recorder:call(kind, inputs, options)
    local output, name = call(self, kind, inputs, options)
    if kinds[kind] then
      local s = kinds[kind](batch, inputs[1].shape, output.shape, options.attributes)
      local key = table.concat(s, " ")
      if not seen[key] then found[#found + 1] = s end
      seen[key] = true
    end
    return output, name
  end
  local ok, problem = pcall(function() script.record(script.configure(model, {})) end)
  Recorder.call = call
  if not ok then error(problem, 0) end
end

--- Convolutions of models, in the order of their first use.
-- @param models list of names
-- @param batch images
-- @return list of { n, ic, ih, iw, oc, oh, ow, kh, kw, sh, sw, ph, pw, dh, dw, groups }
function M.of(models, batch)
  local found, seen = {}, {}
  for _, model in ipairs(models) do add(found, seen, model, batch, { conv2d = shape }) end
  return found
end

--- Convolutions and linear layers of a model, in the order of their first use.
-- @param model its name
-- @param batch images
-- @return list of rows as from M.of, or, of linear layers, { n, c, h, w, out }
function M.layers(model, batch)
  local found = {}
  add(found, {}, model, batch, rows)
  return found
end

--- Whether mptl was built with cuDNN.
function M.can_plan()
  return lfs.attributes(os.getenv "MPTL_BUILD" .. "/bin/cuda_plans") ~= nil
end

--- Has cuDNN make plans of convolutions for a described device (spec/cuda/plans.c). For operands of 16 and 8 bits it
-- compiles engines and calls NVIDIA's driver to load the code; spec/cuda/driver replaces the driver.
-- @param device a100, h100 or b200
-- @param kind f32, tf32, bf16, e4m3, e5m2:e4m3
-- @param shapes as from M.of
-- @param options { environment = "NAME=VALUE ...", mib = most MiB of workspace (default: the usual limit), threads = number of
-- threads that make slow plans in advance, libraries = {folders of libraries, searched first} }
-- @return list of lines that spec/cuda/plans.c prints, "ok ..." or "no ...", one for each pass of each shape
-- @return how many plans were made in advance
function M.plans(device, kind, shapes, options)
  options = options or {}
  local build = os.getenv "MPTL_BUILD"
  local list = os.tmpname()
  local file = assert(io.open(list, "w"))
  for _, s in ipairs(shapes) do file:write(table.concat(s, " "), "\n") end
  file:close()
  local folders = options.libraries or {}
  if kind ~= "f32" and kind ~= "tf32" then folders[#folders + 1] = build .. "/spec/driver" end
  local driver = #folders == 0 and "" or ('LD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" '):format(
    table.concat(folders, ":"))
  local pipe = assert(io.popen(("env %s %s'%s/bin/cuda_plans' %s %s %s %s <%s 2>&1"):format(options.environment or "", driver,
    build, device, kind, options.mib or "usual", options.threads or "", list)))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  local ok = pipe:close()
  os.remove(list)
  local made = options.threads and tonumber(table.remove(lines, 1):match "^made (%d+)$")
  assert(ok and #lines == 3 * #shapes, table.concat(lines, "\n"))
  return lines, made
end

return M
