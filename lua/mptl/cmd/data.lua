--- mptl data: data sets on disk. Each sub-command is a file lua/mptl/cmd/data_NAME.lua of the same form as a command.
local cli = require "mptl.cli"

local M = { name = "data", summary = "fetch, import, check and synthesize data sets" }

local names = { "fetch", "import", "check", "synthesize" }

function M.configure(parser)
  parser:command_target "what"
  for _, name in ipairs(names) do
    local command = cli.command("data_" .. name)
    if command then command.configure(parser:command(name, command.summary)) end
  end
end

function M.run(args)
  return cli.command("data_" .. args.what).run(args)
end

return M
