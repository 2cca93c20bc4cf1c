--- mptl formats: properties of number formats.
local core = require "mptl.core"
local json = require "mptl.json"
local misuse = require "mptl.misuse"

local M = { name = "formats", summary = "bits, range, precision and counts of values of number formats" }

local defaults = { "FP(4,3,4)", "FP(5,2,0)", "FP(6,9,0)" } -- the formats of hfp8

local columns = {
  { "format", "%-14s", "name" }, { "bits", "%4s", "bits" }, { "max", "%12s", "max" }, { "min normal", "%12s", "min_normal" },
  { "min subnormal", "%13s", "min_subnormal" }, { "epsilon", "%10s", "epsilon" }, { "infinity", "%8s", "has_infinity" },
  { "nan", "%4s", "has_nan" }, { "values", "%11s", "values" },
}

function M.configure(parser)
  parser:argument("format", "fp32, tf32, bf16, fp16, fp8_e4m3fn, fp8_e5m2 or FP(e,m,b); default: all "
    .. "named formats, and those of hfp8"):args("*")
  parser:flag("--json", "print one JSON object per format")
end

local function cell(value)
  if type(value) == "boolean" then return value and "yes" or "no" end
  if math.type(value) == "float" then return ("%.6g"):format(value) end
  return tostring(value)
end

local function print_table(formats)
  local lines = {}
  local function row(get)
    local cells = {}
    for i, column in ipairs(columns) do cells[i] = column[2]:format(get(column)) end
    lines[#lines + 1] = table.concat(cells, "  ")
  end
  row(function(column) return column[1] end)
  for _, format in ipairs(formats) do
    row(function(column) return cell(format[column[3]]) end)
  end
  io.stdout:write(table.concat(lines, "\n"), "\n")
end

function M.run(args)
  local names, formats = args.format, {}
  if #names == 0 then
    names = core.formats()
    table.move(defaults, 1, #defaults, #names + 1, names)
  end
  for i, name in ipairs(names) do
    local ok, format = pcall(core.format, name)
    if not ok then misuse.usage("%s", format) end
    formats[i] = format
  end
  if not args.json then
    print_table(formats)
    return 0
  end
  local order = {
    "name", "e", "m", "b", "bits", "max", "min_normal", "min_subnormal", "epsilon", "has_infinity", "has_nan", "values",
    "max_code", "code_size",
  }
  for _, format in ipairs(formats) do io.stdout:write(json.encode(json.object(order, format)), "\n") end
  return 0
end

return M
