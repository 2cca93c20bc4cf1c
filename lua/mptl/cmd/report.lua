--- mptl report: curves and tables of training runs, as a page, SVG or CSV.
local compare = require "mptl.report.compare"
local core = require "mptl.core"
local csv = require "mptl.report.csv"
local curves = require "mptl.report.curves"
local misuse = require "mptl.misuse"
local page = require "mptl.report.page"
local picture = require "mptl.report.picture"
local runs = require "mptl.report.runs"
local tradeoff = require "mptl.report.tradeoff"

local M = { name = "report", summary = "draw curves and tables of training runs: a page, SVG, CSV" }

local charts = misuse.names(curves.charts)
table.insert(charts, 1, "tradeoff")

local choices = {
  { "--against", "NAME", { "ratio_lo", "bits_ratio" },
    "trade-off: low precision counted in elements or in bits (page: both)" },
  { "--accuracy", "NAME", { "assignment", "fp32" }, "trade-off: accuracy in the run's assignment or in fp32 (page: both)" },
  { "--epoch", "NAME", { "last", "best" },
    "trade-off: the last epoch (default), or the epoch with the best accuracy" },
  { "--chart", "NAME", charts, "what --svg draws (default tradeoff)" },
}

function M.configure(parser)
  parser:argument("run", "run directories, or directories with run directories at any depth")
    :args("+"):argname("RUN")
  parser:option("-o --output", "write the page to this file (default report.html, unless --svg or "
    .. "--csv is given); - is stdout"):argname("FILE.html")
  parser:option("--svg", "write one picture, with a panel per network, width and data set; - is stdout")
    :argname("FILE.svg")
  parser:option("--csv", "write the table of runs, means over seeds to FILE-means.csv, and the metrics by "
    .. "epoch to FILE-epochs.csv; - is stdout, for the table of runs only"):argname("FILE.csv")
  for _, row in ipairs(choices) do
    local flag, argname, accepted, help = table.unpack(row)
    parser:option(flag, ("%s: %s"):format(help, table.concat(accepted, ", "))):argname(argname):convert(function(value)
      for _, choice in ipairs(accepted) do
        if value == choice then return value end
      end
      return nil, ("%s: %s, accepted are %s%s"):format(flag, value, table.concat(accepted, ", "), misuse.suggest(value, accepted))
    end)
  end
end

-- The drawings of --svg: all panels of the chart.
local function drawings(panels, args)
  local list, name = {}, args.chart or "tradeoff"
  for _, panel in ipairs(panels) do
    if name == "tradeoff" then
      list[#list + 1] = tradeoff.draw(panel, {
        against = args.against or "ratio_lo", accuracy = args.accuracy or "assignment", epoch = args.epoch or "last",
        width = 680, plot_height = 300,
      })
    else
      for _, d in ipairs(curves.draw(panel, name, { width = 680, plot_height = 300 })) do list[#list + 1] = d end
    end
  end
  if #list == 0 then error(("--svg %s: the runs have nothing to show in the chart %s"):format(args.svg, name), 0) end
  return list
end

local function beside(path, name)
  local stem, extension = path:match "^(.*[^/])(%.[^./]*)$"
  return ("%s-%s%s"):format(stem or path, name, extension or "")
end

-- Writes a file, or stdout for "-". Reports the file on `messages`: stdout, or stderr when a file
-- goes to stdout.
local function write(path, content, messages)
  if path == "-" then
    io.stdout:write(content)
    return
  end
  core.write_file(path, { content })
  messages:write(("wrote %s\n"):format(path))
end

function M.run(args)
  if args.chart and not args.svg then misuse.usage("--chart %s: goes with --svg FILE.svg", args.chart) end
  local output, streams = args.output or not (args.svg or args.csv) and "report.html" or nil, 0
  for _, path in pairs { output, args.svg, args.csv } do streams = streams + (path == "-" and 1 or 0) end
  if streams > 1 then misuse.usage("-: only one of --output, --svg and --csv can go to stdout") end
  local messages = streams > 0 and io.stderr or io.stdout

  local list, notes = runs.load(args.run)
  for _, note in ipairs(notes) do io.stderr:write("mptl report: ", note, "\n") end
  local panels = compare.panels(list)
  if args.svg then write(args.svg, picture.compose(drawings(panels, args)), messages) end
  if args.csv then
    write(args.csv, csv.runs(panels), messages)
    if args.csv ~= "-" then
      write(beside(args.csv, "means"), csv.means(panels), messages)
      write(beside(args.csv, "epochs"), csv.epochs(panels), messages)
    end
  end
  if output then
    local choice = { against = args.against, accuracy = args.accuracy, epoch = args.epoch }
    write(output, page.html(panels, list, notes, choice), messages)
  end
  return 0
end

return M
