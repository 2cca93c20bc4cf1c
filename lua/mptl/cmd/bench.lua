--- mptl bench: benchmarks. Each is a file lua/mptl/cmd/bench_NAME.lua of the same form as a command.
local cli = require "mptl.cli"

local M = { name = "bench", summary = "measure rounding, a training step, the data loader" }

local names = { "round", "step", "loader" }

function M.configure(parser)
  parser:command_target "what"
  for _, name in ipairs(names) do
    local bench = cli.command("bench_" .. name)
    if bench then bench.configure(parser:command(name, bench.summary)) end
  end
end

function M.run(args)
  return cli.command("bench_" .. args.what).run(args)
end

return M
