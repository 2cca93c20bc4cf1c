--- mptl repl: interactive Lua with everything loaded. On a terminal it has line editing, history
-- and completion. From a pipe it reads lines and prints results, and nothing else.
local completion = require "mptl.completion"
local core = require "mptl.core"
local folder = require "mptl.folder"
local help = require "mptl.help"
local mptl = require "mptl"
local script = require "mptl.script"
local show = require "mptl.show"

-- Copies of Lua's functions and files: the user's code may replace the originals.
local concat, find, gsub, pack, sub = table.concat, string.find, string.gsub, table.pack, string.sub
local load, select, type = load, select, type
local stdin, stdout, stderr = io.stdin, io.stdout, io.stderr

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

-- Compiles a text, as an expression if possible. Returns the chunk; nil and true when it needs more
-- lines; or nil, false and the message.
local function compile(text, env)
  text = gsub(text, "^%s*=", "return ")
  local chunk = load("return " .. text, "=stdin", "t", env)
  if chunk then return chunk end
  local message
  chunk, message = load(text, "=stdin", "t", env)
  if chunk then return chunk end
  return nil, sub(message, -5) == "<eof>", message
end

-- Prints an error, which may be any value of the user's. Returns whether that was interrupted.
local function report(message)
  local ok, text = core.editline.call(show.text, message)
  if not ok and type(text) ~= "string" then text = "an error that cannot be shown" end
  stderr:write(text, "\n")
  return core.editline.interrupted()
end

-- Runs a chunk and prints its values, both protected and interruptible: to print a value may run
-- code of the user's. Returns whether it succeeded, and whether it was interrupted.
local function run(chunk)
  local ok, message = core.editline.call(function()
    local results = pack(chunk())
    for i = 1, results.n do results[i] = show.text(results[i]) end
    if results.n > 0 then
      stdout:write(concat(results, "\t"), "\n")
      stdout:flush()
    end
  end)
  local interrupted = core.editline.interrupted()
  return ok, not ok and report(message) or interrupted
end

-- Line editing. Returns a function (prompt) -> line, nil at the end, false when interrupted; and a
-- function to call at the end.
local function terminal(env)
  local path = history_path()
  os.setlocale("", "ctype")
  if path then core.editline.load(path) end
  core.editline.completer(function(before, length) return completion.candidates(env, before:sub(#before - length + 1)) end)
  local function leave()
    if not path then return end
    pcall(folder.make_above, path) -- without a folder there is no history
    core.editline.save(path, 1000)
  end
  return core.editline.read, leave
end

--- Reads and runs until the end of the input.
-- @param read function (prompt) -> line, nil at the end, false when interrupted
-- @param env table of globals
-- @param remember function (text), for the history; nil for a program in a pipe, which Ctrl-C ends
-- @return exit status: 1 when code from a pipe raised an error, 130 when it was interrupted
function M.loop(read, env, remember)
  local text
  local status = 0
  while true do
    local line = read(text and "   > " or "mptl> ")
    if line == nil then break end
    if line == false then -- Ctrl-C discards what was typed
      text = nil
      stdout:write "\n"
    else
      text = text and text .. "\n" .. line or line
      local chunk, more, message = compile(text, env)
      if not more then
        if remember and find(text, "%S") then remember(text) end
        local ok, interrupted
        if chunk then ok, interrupted = run(chunk) else report(message) end
        if not remember and interrupted then return 130 end
        if not remember and not ok then status = 1 end
        text = nil
      end
    end
  end
  if text then
    report(select(3, compile(text, env)))
    status = remember and 0 or 1
  end
  return status
end

function M.run(args)
  local env = M.environment()
  if args.script then open_script(env, args.script) end
  if not core.isatty(0) then return M.loop(function() return stdin:read "l" end, env) end
  print(("mptl %s, %s. help() lists what there is; Tab completes; Ctrl-D leaves."):format(mptl.version, _VERSION))
  local read, leave = terminal(env)
  core.editline.guard(true)
  M.loop(read, env, core.editline.add)
  core.editline.guard(false)
  stdout:write "\n"
  leave()
  return 0
end

return M
