--- mptl bench round: how fast arrays are rounded, beside memcpy of the same array on the same
-- threads.
local core = require "mptl.core"
local json = require "mptl.json"
local options = require "mptl.options"
local round = require "mptl.cmd.round"
local threads = require "mptl.threads"

local M = { name = "round", summary = "throughput of rounding, encoding and decoding, beside memcpy" }

local order = {
  "format", "rounding", "elements", "threads", "isa", "gelem_per_s", "gb_per_s", "memcpy_gb_per_s", "encode_gb_per_s",
  "decode_gb_per_s",
}

function M.configure(parser)
  parser:option("--format", "the format: fp16, FP(4,3,4), ..."):argname("F"):default("FP(4,3,4)")
    :convert(round.format_option("--format"))
  options.add(parser, { "rounding", "threads", "json" })
  parser:option("--elements", "values in the array"):argname("N"):default(tostring(32 << 20)):convert(function(text)
    local n = math.tointeger(tonumber(text))
    if n and n >= 1 and n <= 1 << 40 then return n end
    return nil, ("--elements: %s, accepted are whole numbers from 1 to 2^40"):format(text)
  end)
end

--- Runs the benchmark.
-- @param settings `format`, `rounding`, `elements`, `threads`, `seconds`
-- @return table of the fields that --json prints; rates count bytes read and bytes written
function M.benchmark(settings)
  local rounding, count = settings.rounding or "nearest_even", settings.threads or core.threads()
  local result = core.bench_round { format = settings.format, mode = rounding, elements = settings.elements, threads = count,
    seconds = settings.seconds }
  result.format, result.rounding, result.elements = settings.format, rounding, settings.elements
  result.threads, result.isa = count, core.isa()
  return result
end

function M.run(args)
  if args.threads then threads.warn(("--threads %d"):format(args.threads), args.threads) end
  local result = M.benchmark(args)
  if args.json then
    io.stdout:write(json.encode(json.object(order, result)), "\n")
  else
    io.stdout:write(([[
%s, %s, %d values, %d threads, %s
round   %7.2f GB/s  (%.2f of memcpy, %.2f Gelem/s)
encode  %7.2f GB/s
decode  %7.2f GB/s
memcpy  %7.2f GB/s
]]):format(result.format, result.rounding, result.elements, result.threads, result.isa, result.gb_per_s,
      result.gb_per_s / result.memcpy_gb_per_s, result.gelem_per_s, result.encode_gb_per_s, result.decode_gb_per_s,
      result.memcpy_gb_per_s))
  end
  return 0
end

return M
