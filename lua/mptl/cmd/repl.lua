--- mptl repl: interactive Lua with everything loaded. On a terminal with line editing, history and completion; from a pipe it
-- reads lines and prints results, nothing else.
local completion = require "mptl.completion"
local core = require "mptl.core"
local help = require "mptl.help"
local lfs = require "lfs"
local mptl = require "mptl"
local script = require "mptl.script"

local M = { name = "repl", summary = "interactive Lua with everything loaded; help() inside" }

function M.configure(parser)
  parser:argument("script", "model script to load as script, graph, plan"):args("?")
end

local function history_path()
  local state = os.getenv "XDG_STATE_HOME"
  local home = os.getenv "HOME"
  if state and state ~= "" then return state .. "/mptl/history" end
  return home and home .. "/.local/state/mptl/history" or nil
end

local function make_directories(path)
  for at in path:gmatch("()/") do
    if at > 1 then lfs.mkdir(path:sub(1, at - 1)) end
  end
end

-- A value as the loop prints it; tables one level deep.
local function show(value)
  local mt = getmetatable(value)
  if type(value) ~= "table" or (mt and mt.__tostring) then return tostring(value) end
  local parts, limit = {}, 40
  for i, v in ipairs(value) do
    if i <= limit then parts[#parts + 1] = type(v) == "string" and ("%q"):format(v) or tostring(v) end
  end
  local keys, n = {}, #value
  for key in pairs(value) do
    if not (math.type(key) == "integer" and key >= 1 and key <= n) then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do
    if i <= limit then
      local v = value[key]
      parts[#parts + 1] = ("%s = %s"):format(tostring(key), type(v) == "string" and ("%q"):format(v) or tostring(v))
    end
  end
  if n + #keys > #parts then parts[#parts + 1] = ("... (%d in all)"):format(n + #keys) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function open_script(env, name)
  env.script = script.configure(name)
  env.graph = script.record(env.script)
  env.plan = script.plan(env.script, env.graph)
end

--- The globals of the interactive Lua.
-- @return a table
function M.environment()
  local env = setmetatable({
    mptl = mptl, nn = mptl.nn, precision = mptl.precision, core = core,
  }, { __index = _G })
  function env.help(x) print(help.text(x)) end
  function env.open(name)
    open_script(env, name)
    print(("script: %s; graph: %d operators; plan: %s"):format(env.script.path, #env.graph:operators(), env.script.precision))
  end
  return env
end

-- The chunk of a text, as an expression first; nil and true when more lines are to come, else nil, false and the message.
local function compile(text, env)
  text = text:gsub("^%s*=", "return ")
  local chunk = load("return " .. text, "=stdin", "t", env)
  if chunk then return chunk end
  local message
  chunk, message = load(text, "=stdin", "t", env)
  if chunk then return chunk end
  return nil, message:sub(-5) == "<eof>", message
end

local function report(message)
  io.stderr:write(type(message) == "string" and message or show(message), "\n")
end

local function run(chunk)
  local results = table.pack(core.editline.call(chunk))
  if not results[1] then return report(results[2]) end
  local texts = {}
  for i = 2, results.n do texts[i - 1] = show(results[i]) end
  if results.n > 1 then print(table.concat(texts, "\t")) end
end

-- Reads with editing. Returns a function (prompt) -> line, nil at the end, false when interrupted; and one to call at the end.
local function terminal(env)
  local path = history_path()
  os.setlocale("", "ctype")
  if path then core.editline.load(path) end
  core.editline.completer(function(before, length) return completion.candidates(env, before:sub(#before - length + 1)) end)
  local function leave()
    if not path then return end
    make_directories(path)
    core.editline.save(path, 1000)
  end
  return core.editline.read, leave
end

--- Reads and runs until the end of the input.
-- @param read function (prompt) -> line, nil at the end, false when interrupted
-- @param env table of globals
-- @param remember function (text), for the history
function M.loop(read, env, remember)
  local text
  while true do
    local line = read(text and "   > " or "mptl> ")
    if line == nil then break end
    if line == false then -- Ctrl-C: what was typed so far is gone
      text = nil
      io.stdout:write("\n")
    else
      text = text and text .. "\n" .. line or line
      local chunk, more, message = compile(text, env)
      if not more then
        if text:match("%S") then remember(text) end
        if chunk then run(chunk) else report(message) end
        text = nil
      end
    end
  end
  if text then report(select(3, compile(text, env))) end
end

function M.run(args)
  local env = M.environment()
  if args.script then open_script(env, args.script) end
  if core.isatty(0) then
    print(("mptl %s, %s. help() lists what there is; Tab completes; Ctrl-D leaves."):format(mptl.version, _VERSION))
    local read, leave = terminal(env)
    M.loop(read, env, core.editline.add)
    print()
    leave()
  else
    M.loop(function() return io.read "l" end, env, function() end)
  end
  return 0
end

return M
