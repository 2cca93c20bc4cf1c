--- mptl bench: benchmarks.
local cli = require "mptl.cli"

return cli.family("bench", "measure rounding, a training step, the data loader", {
  "round", "step", "loader",
})
