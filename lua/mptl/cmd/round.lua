--- mptl round: a filter that rounds numbers, as text or as raw binary32.
--
-- Reads, rounds and writes one piece of input after the other, so that it answers at once and
-- memory is bounded. Only FP(e,m,auto) reads the whole input first: its bias shift depends on all
-- values.
local core = require "mptl.core"
local options = require "mptl.options"

local M = { name = "round", summary = "filter: rounds numbers from standard input to a format" }

local piece_bytes = 1 << 16
local longest_line = 4096
local accepted = "a decimal number, a hexadecimal one such as 0x1.8p-3, or 0x and 8 hexadecimal digits"

--- The converter of an argparse option that names a format.
-- @param option its flag
-- @return a function
function M.format_option(option)
  return function(text)
    local ok, message = pcall(core.format, text)
    if not ok then return nil, ("%s: %s"):format(option, message) end
    return text
  end
end

function M.configure(parser)
  parser:option("--format", "the format: fp16, FP(4,3,4), ..."):argname("F"):count(1):convert(M.format_option("--format"))
  options.add(parser, { "rounding", "seed" })
  local help = "what overflows and infinities become: saturate, inf"
  parser:option("--overflow", help):argname("NAME"):convert(function(text)
    if text == "saturate" or text == "inf" then return text end
    return nil, ("--overflow: %s, accepted are saturate, inf"):format(text)
  end)
  parser:flag("--binary",
    "read and write raw little-endian binary32, instead of one number per line")
end

local function write(text)
  local ok, message = io.stdout:write(text)
  if ok then ok, message = io.stdout:flush() end
  if not ok then error("standard output: " .. message, 0) end
end

-- Reads the input and calls take with pieces of whole lines or values. cut(bytes) returns how many
-- of the bytes that were read are whole. Finally calls take with the bytes that are left.
local function for_pieces(cut, take)
  local pending = ""
  for bytes in core.read_input, piece_bytes do
    pending = pending .. bytes
    local n = cut(pending)
    if n > 0 then take(pending:sub(1, n)) end
    pending = pending:sub(n + 1)
  end
  if #pending > 0 then take(pending) end
end

local function whole_input()
  local pieces = {}
  for text in core.read_input, piece_bytes do pieces[#pieces + 1] = text end
  return table.concat(pieces)
end

local function settings_of(args)
  return { mode = args.rounding, overflow = args.overflow, seed = args.seed, index = 0 }
end

local function filter_text(args, read)
  local settings = settings_of(args) -- index counts all values: the stochastic mode depends on it
  local function take(text)
    local rounded, count, bad = core.round_lines(text, args.format, settings)
    write(rounded)
    settings.index = settings.index + count
    if bad then
      if #bad > 60 then bad = bad:sub(1, 57) .. "..." end
      error(("line %d: %s, accepted are %s"):format(settings.index + 1, bad == "" and "empty" or bad, accepted), 0)
    end
  end
  local function cut(text)
    -- Anchored: else matching would begin at every byte of a long line.
    local n = text:match "^.*\n()"
    n = n and n - 1 or 0
    if #text - n <= longest_line then return n end
    take(text:sub(1, n))
    error(("line %d: longer than %d bytes"):format(settings.index + 1, longest_line), 0)
  end
  read(cut, take)
end

local function filter_binary(args, read)
  local settings = settings_of(args)
  read(function(bytes) return #bytes // 4 * 4 end, function(bytes)
    local n = #bytes // 4
    write(core.round(core.tensor({ n }):fromstring(bytes:sub(1, 4 * n)), args.format, settings):tostring())
    settings.index = settings.index + n
    if #bytes % 4 ~= 0 then
      error(("standard input: ends %d bytes into a value, accepted are whole values of 4 bytes"):format(#bytes % 4), 0)
    end
  end)
end

function M.run(args)
  local read = for_pieces
  if core.format(args.format).b == "auto" then
    read = function(_, take) take(whole_input()) end
  end
  local filter = args.binary and filter_binary or filter_text
  filter(args, read)
  return 0
end

return M
