--- mptl data: data sets on disk.
local cli = require "mptl.cli"

return cli.family("data", "fetch, import, check and synthesize data sets", {
  "fetch", "import", "check", "synthesize",
})
