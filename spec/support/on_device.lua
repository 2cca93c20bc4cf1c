-- Runs specs that do not name a device on one: models and workspaces are made there.
local core = require "mptl.core"

--- Makes a device the default.
-- @param device its name
return function(device)
  local ok, name = pcall(core.device, device)
  if not ok then
    io.stderr:write("not run: ", name, "\n")
    os.exit(77)
  end
  local model, workspace, predict_memory, compute = core.model, core.workspace, core.predict_memory, core.compute
  local function with_device(options)
    local copy = { device = name }
    for k, v in pairs(options or {}) do copy[k] = v end
    return copy
  end
  function core.model(graph, options) return model(graph, with_device(options)) end
  function core.workspace(on) return workspace(on or name) end
  function core.predict_memory(assignment, options) return predict_memory(assignment, with_device(options)) end
  function core.compute(a, b, setting, on, ...) return compute(a, b, setting, on or name, ...) end
end
