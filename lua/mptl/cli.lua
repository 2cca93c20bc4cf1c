--- The command line: `mptl COMMAND ...`. A command is a file lua/mptl/cmd/NAME.lua that returns
-- {name =, summary =, configure = function (parser), run = function (args) -> exit status}. A
-- command whose file is absent is not listed.
-- Exit status: 0 success, 1 failure at run time, 2 wrong usage, 130 interrupted.
local argparse = require "argparse"
local misuse = require "mptl.misuse"
local shell = require "mptl.shell"

local M = {}

--- The commands, in the order of the help.
M.commands = { "train", "eval", "plan", "sweep", "report", "round", "formats", "bench", "data", "doctor", "repl" }

--- Loads a command.
-- @param name its name
-- @return its table; nil when there is no such command
function M.command(name)
  local module = "mptl.cmd." .. name
  return package.searchpath(module, package.path) and require(module) or nil
end

--- A command with sub-commands: each is a file lua/mptl/cmd/NAME_PART.lua of the same form.
-- @param name its name
-- @param summary one line
-- @param parts names of the sub-commands
-- @return its table
function M.family(name, summary, parts)
  local family = { name = name, summary = summary }
  function family.configure(parser)
    parser:command_target "part"
    for _, part in ipairs(parts) do
      local command = M.command(("%s_%s"):format(name, part))
      if command then command.configure(parser:command(part, command.summary)) end
    end
  end
  function family.run(args)
    return M.command(("%s_%s"):format(name, args.part)).run(args)
  end
  return family
end

--- The commands that this installation has.
-- @return list of their tables
function M.available()
  local list = {}
  for _, name in ipairs(M.commands) do list[#list + 1] = M.command(name) end
  return list
end

local function overview()
  local lines = {
    "mptl: training with low-precision floating-point assignments", "", "usage: mptl COMMAND [options]", "",
  }
  for _, command in ipairs(M.available()) do lines[#lines + 1] = ("  %-8s %s"):format(command.name, command.summary) end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "mptl COMMAND --help lists options; mptl --version prints the version."
  lines[#lines + 1] = "First steps: " .. shell.command { "train", "resnet18_cifar.lua", "--quick" }
  return table.concat(lines, "\n") .. "\n"
end

-- argparse would print the help and exit. Here it raises this token instead, so that only the host
-- ends the process.
local help_wanted = {}

local function help_flag(parser)
  parser:add_help(false)
  parser:flag("-h --help", "show this help"):action(function() error(help_wanted, 0) end)
end

--- A parser for a command.
-- @param command its table
-- @return the parser
function M.parser(command)
  local parser = argparse("mptl " .. command.name, command.summary)
  help_flag(parser)
  local with_help = parser.command
  function parser.command(self, ...) -- sub-commands get the same --help
    local sub = with_help(self, ...)
    help_flag(sub)
    return sub
  end
  command.configure(parser)
  if #parser._commands == 0 then parser:argument("surplus"):args("*"):hidden(true) end
  return parser
end

-- Prints an error on one line. For a missing module it leaves out the list of files that were
-- tried.
local function complain(name, message)
  local text = misuse.text(message):gsub("(module '[^\n]-' not found):\n.*", "%1 in the usual places, LUA_PATH or LUA_CPATH")
  text = text:gsub("%s+$", ""):gsub("\n%s*", " ")
  if type(message) == "table" and text == "a table" then text = "error object: a table, without __tostring" end
  io.stderr:write(("%s: %s\n"):format(name, text))
end

-- The words that name the command: its name, and that of the sub-command if it has any.
local function name_of(command, parser, argv)
  for _, sub in ipairs(parser._commands) do
    if sub._name == argv[1] then return { command.name, sub._name } end
  end
  return { command.name }
end

-- argparse's message on one line, with its hint in the same form as everywhere else.
local function parse_message(words, parser, message)
  message = message:gsub("\nDid you mean (.-)%?$", " (did you mean %1?)"):gsub("\n%s*", " ")
  if message:match "^unknown option" or message:match "^too many" then
    return ("%s; %s lists them"):format(message, shell.command { words[1], words[2] or "--help", words[2] and "--help" })
  end
  if message:match "^unknown command" or message:match "^a command is required" then
    local names = {}
    for i, sub in ipairs(parser._commands) do names[i] = sub._name end
    return ("%s, accepted are %s"):format(message, table.concat(names, ", "))
  end
  return message
end

-- The help of the command, or of the sub-command that the arguments name.
local function help_of(parser, argv)
  local current = parser
  for _, word in ipairs(argv) do
    for _, sub in ipairs(current._commands or {}) do
      if sub._name == word then
        current = sub
        break
      end
    end
  end
  return current:get_help()
end

-- Joins a negative number to the option before it (--epochs=-1): argparse would take it for an
-- option.
local function with_negative_values(argv)
  local words = {}
  for _, word in ipairs(argv) do
    if word:find "^%-%.?%d" and #words > 0 and words[#words]:find "^%-%-[%a-]+$" then
      words[#words] = words[#words] .. "=" .. word
    else
      words[#words + 1] = word
    end
  end
  return words
end

local function parse(command, argv)
  local parser = M.parser(command)
  argv = with_negative_values(argv)
  local ok, result
  local raised = not pcall(function() ok, result = parser:pparse(argv) end)
  if raised then
    for _, word in ipairs(argv) do
      if word == "-h" or word == "--help" then
        io.stdout:write(help_of(parser, argv), "\n")
        return nil, 0
      end
    end
  end
  if ok and result.surplus and #result.surplus > 0 then -- argparse's own message does not name them
    ok, result = false, "too many arguments: " .. table.concat(result.surplus, " ")
  end
  if ok then return result end
  complain("mptl " .. command.name, parse_message(name_of(command, parser, argv), parser, result))
  return nil, 2
end

local function traceback(message)
  if os.getenv "MPTL_TRACEBACK" and type(message) == "string" then return debug.traceback(message, 2) end
  return message
end

--- Runs a command; prints its errors.
-- @param command its table
-- @param argv list of its arguments
-- @return the exit status
function M.run(command, argv)
  local args, status = parse(command, argv)
  if not args then return status end
  local ok, result = xpcall(command.run, traceback, args)
  if ok then return result or 0 end
  if misuse.is_usage(result) then
    complain("mptl " .. command.name, result)
    return 2
  end
  if os.getenv "MPTL_TRACEBACK" then
    io.stderr:write("mptl: ", misuse.text(result), "\n")
  else
    complain("mptl", result)
  end
  return 1
end

--- Runs the command line; returns the exit status.
-- @param argv the arguments, as Lua's `arg`
-- @return the exit status
function M.main(argv)
  local name = argv[1]
  local help = name == "-h" or name == "--help" or name == "help"
  if help then name = argv[2] end
  if name == nil then
    io.stdout:write(overview())
    return 0
  end
  if name == "--version" then
    local mptl = require "mptl"
    io.stdout:write("mptl ", mptl.version, "\n")
    return 0
  end
  local command = name:match("^%a+$") and M.command(name)
  if not command then
    local names = {}
    for _, c in ipairs(M.available()) do names[#names + 1] = c.name end
    complain("mptl", ("%s %s: unknown%s, accepted are %s"):format(name:sub(1, 1) == "-" and "option" or "command", name,
      misuse.suggest(name, names), table.concat(names, ", ")))
    return 2
  end
  return M.run(command, help and { "--help" } or table.move(argv, 2, #argv, 1, {}))
end

return M
