-- For specs of training runs: the script of a small network, a directory to work in, running the program.
local files = require "data_files"
local json = require "mptl.json"

local M = {}

--- A script that trains in less than a second: 40 images in batches of 16, so the last batch has 8. Its formats are so narrow
-- that tensors are promoted and steps are skipped. KILL=n in the environment interrupts the process after its n-th step.
M.script = [[
local mptl = require "mptl"
local nn = mptl.nn
local steps = 0
return {
  model = function(cfg)
    return nn.Sequential {
      nn.Conv2d { 3, 4 * cfg.width, kernel = 4, stride = 4, bias = false }, nn.BatchNorm2d(4 * cfg.width), nn.ReLU(),
      nn.Flatten(), nn.Linear { 256 * cfg.width, 10 },
    }
  end,
  dataset = "synthetic", batch = 16, epochs = 3, limit_train = 40, limit_test = 20, rounding = "stochastic",
  loss_scale = mptl.loss_scale.dynamic { init = 2 ^ 24, growth_interval = 2 },
  precision = mptl.precision.policy(function(graph) graph:group(1):demote() end, {
    formats = { high = "FP(6,9,0)", low = { v = "FP(3,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,4)", dtheta = "FP(6,9,0)" } },
    threshold = 0.01,
    after_step = function()
      steps = steps + 1
      if steps == tonumber(os.getenv "KILL") then io.popen("kill -INT $PPID"):close() end
    end,
  }),
}
]]

--- Makes a directory with the script in it.
function M.directory()
  local dir = files.directory()
  M.spill(dir .. "/tiny.lua", M.script)
  return dir
end

function M.remove(dir)
  os.execute("rm -rf " .. dir)
end

function M.slurp(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

function M.spill(path, text)
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
end

function M.exists(path)
  local f = io.open(path, "rb")
  if f then f:close() end
  return f ~= nil
end

--- Whether two files have the same contents (assert.equal would print them).
function M.same_files(a, b)
  return M.slurp(a) == M.slurp(b)
end

--- Runs mptl in a directory; returns its exit status, output and errors. before: shell text such as "KILL=3".
function M.mptl(dir, arguments, before)
  local command = ("cd %s && %s %s %s >out.txt 2>err.txt"):format(dir, before or "", os.getenv "MPTL_BIN", arguments)
  local _, _, code = os.execute(command)
  return code, M.slurp(dir .. "/out.txt"), M.slurp(dir .. "/err.txt")
end

--- The metrics of a run, as a list.
function M.metrics(dir)
  local list = {}
  for line in M.slurp(dir .. "/metrics.jsonl"):gmatch "[^\n]+" do list[#list + 1] = assert(json.decode(line)) end
  return list
end

--- The metrics without the fields that depend on the clock and on the process.
function M.reproducible(dir)
  local list = M.metrics(dir)
  for _, m in ipairs(list) do m.seconds, m.images_per_s, m.peak_bytes = nil, nil, nil end
  return list
end

return M
