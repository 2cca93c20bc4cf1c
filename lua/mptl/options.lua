--- The options that train, eval, plan and bench step share: one table, read by the command line, by
-- the check of a script's fields, by the help, by configurations (configuration.lua) and by sweeps.
-- To add an option, add a row here and use it.
local core = require "mptl.core"
local data = require "mptl.data"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local precision = require "mptl.precision"

local M = {}

-- Columns: name, type (see types), limits (above: a value must be larger than min), argument's name
-- in the help, help, and
--   default         the value when neither the script nor the command line gives one
--   quick           the value under --quick when the command line gives none
--   results = false it does not change results, so that --resume accepts another value: it changes
--                   nothing that is computed, or only the order of sums (threads, device), or
--                   whether a damaged image ends the run (on_bad_image). All others change results
--   script = false  it is not a field of a script
--   sweep = false   sweep files cannot set it: the sweep sets it for each run
--   policy = true   policies have an option of the same name
--   eval = true     mptl eval takes it from the checkpoint's run
M.rows = {
  { "dataset", "choice", choices = data.names, default = "cifar10", quick = "synthetic", eval = true,
    help = "data set to train on" },
  { "data", "string", results = false, arg = "DIR",
    help = "where the data sets are (default: $MPTL_DATA, $XDG_DATA_HOME/mptl)" },
  { "image_size", "whole", min = 1, max = 1024, eval = true,
    help = "side of the images in pixels, for imagenet (default 224) and synthetic (default 32)" },
  { "limit_train", "whole", min = 1, max = 2 ^ 31 - 1, quick = 4096,
    help = "train on N images only: the first ones; of imagenet, spread evenly over all" },
  { "limit_test", "whole", min = 1, max = 2 ^ 31 - 1, quick = 1024, eval = true, help = "test on N images only" },
  { "on_bad_image", "choice", choices = { "stop", "skip" }, default = "stop", results = false,
    help = "what to do when an image cannot be decoded" },
  { "width", "number", min = 0, above = true, max = 16, default = 1, quick = 0.25, eval = true, arg = "W",
    help = "width multiplier of the network" },
  { "batch", "whole", min = 1, max = 65536, default = 128, eval = true, help = "images per training step" },
  { "epochs", "whole", min = 1, max = 1000000, default = 200, quick = 6,
    help = "how many times to go through the training set" },
  { "lr", "number", min = 0, above = true, max = 1e6, arg = "X", help = "initial learning rate" },
  { "seed", "whole", min = 0, max = 2 ^ 53, default = 1, eval = true,
    help = "seed of initial values, data order, augmentation and rounding" },
  { "policy", "policy", arg = "NAME",
    help = "fp32, uniform_low, operator, amp, demotion, increasing, random, top_k, or FILE.lua" },
  { "ratio", "number", min = 0, max = 1, policy = true, arg = "R", help = "share of the elements to make low" },
  { "k", "whole", min = 0, max = 1000000, policy = true, arg = "K", help = "groups that top_k makes low" },
  { "policy_seed", "whole", min = 0, max = 2 ^ 53, help = "seed of random's order of groups (default: the run's seed)" },
  { "threshold", "threshold", policy = true, arg = "T",
    help = "promote a tensor when this share of it overflows; off: never" },
  { "formats", "formats", policy = true, arg = "NAME",
    help = 'candidate formats: hfp8, fp8, bf16, fp16, or HIGH/LOW: "FP(6,9,0)/FP(4,3,auto)"' },
  { "rounding", "choice", choices = core.rounding_modes(), default = "nearest_even", eval = true, help = "rounding mode" },
  { "compute", "choice", choices = core.compute_settings(), default = "auto",
    help = "types of matrix products. auto: narrower types where they are exact and faster;"
      .. " f32: binary32 always; narrow: narrower types wherever they are exact;"
      .. " fp8: as auto, and 8-bit tensor cores, even where they sum in fewer bits;"
      .. " tf32: as auto, and binary32 in TF32 units, which round operands to 11 significant bits"
      .. " (fp8 and tf32 are for GPUs);"
      .. " onednn: as auto, on CPUs by oneDNN instead of mptl's own kernels. One of" },
  { "storage", "choice", choices = core.storages(), default = "packed", results = false,
    help = "store values in as many bits as their formats have, or in binary32" },
  { "device", "device", default = "auto", results = false, arg = "D", help = "auto, cpu, cuda or cuda:N" },
  { "threads", "whole", min = 1, max = 1024, results = false,
    help = "threads to compute with (default: one for each processor that the process may use);"
      .. " results do not depend on it, except with --compute onednn" },
  { "out", "string", results = false, sweep = false, arg = "DIR",
    help = "run directory (default runs/<script>-<policy>-<time>)" },
  { "steps_every", "whole", min = 1, max = 2 ^ 31 - 1, results = false, help = "write every Nth step to steps.jsonl" },
  { "tensors_every", "whole", min = 1, max = 2 ^ 31 - 1, results = false,
    help = "every Nth step, write to tensors.jsonl what rounding did to each tensor" },
  { "exponents", "flag", results = false, help = "with --tensors-every: count the values by exponent, too" },
  { "gradient_error", "whole", min = 1, max = 2 ^ 31 - 1, results = false,
    help = "after each epoch, compare the gradient on N fixed batches with that in fp32: gradient_error.jsonl" },
  { "on_nan", "choice", choices = { "stop", "continue" }, results = false,
    help = "what to do when the loss is NaN (default: continue while loss scaling keeps the"
      .. " parameters finite)" },
  { "on_skipped", "choice", choices = { "stop", "continue" }, results = false,
    help = "what to do when every step of an epoch was skipped, as gradients were not finite, and"
      .. " the loss scale cannot fall any further (default: stop)" },
  { "resume", "flag", results = false, script = false, sweep = false,
    help = "continue from the last checkpoint of the run directory" },
  { "quick", "flag", results = false, script = false,
    help = "train for a minute or two: the synthetic set, few epochs, small batches, a narrow network" },
  { "quiet", "flag", default = false, results = false, sweep = false, help = "no progress bar" },
  { "json", "flag", default = false, results = false, script = false, sweep = false, help = "print JSON" },
}

M.by_name, M.names = {}, {}
for i, row in ipairs(M.rows) do
  row.name, row.type = row[1], row[2]
  M.by_name[row.name] = row
  M.names[i] = row.name
end

-- type -> function (row, value) -> the checked value; or nil and what is accepted. A script's
-- values are numbers or booleans, those of the command line are strings.
local types = {}

local function in_limits(row, n)
  return n >= row.min and n <= row.max and not (row.above and n == row.min)
end

function types.whole(row, value)
  local n = math.tointeger(tonumber(value))
  if n and in_limits(row, n) then return n end
  return nil, ("whole numbers from %d to %d"):format(row.min, row.max)
end

function types.number(row, value)
  local n = tonumber(value)
  if n and in_limits(row, n) then return n end
  return nil, ("numbers %s %g to %g"):format(row.above and "above" or "from", row.min, row.max)
end

function types.choice(row, value)
  for _, choice in ipairs(row.choices) do
    if value == choice then return value end
  end
  return nil, table.concat(row.choices, ", ") .. misuse.suggest(value, row.choices)
end

function types.string(_, value)
  if type(value) == "string" and value ~= "" then return value end
  return nil, "text"
end

function types.flag(_, value)
  if type(value) == "boolean" then return value end
  return nil, "true, false"
end

function types.threshold(_, value)
  local n = tonumber(value)
  if n and n > 0 and n <= 1 then return n end
  if value == "off" or value == false then return false end
  return nil, "numbers above 0 to 1, off"
end

function types.policy(_, value)
  for _, name in ipairs(precision.names) do
    if value == name then return value end
  end
  local accepted = table.concat(precision.names, ", ") .. ", FILE.lua"
  if type(value) == "string" and value:match("%.lua$") then
    if lfs.attributes(value, "mode") == "file" then return value end
    return nil, accepted .. " (no such file)"
  end
  return nil, accepted .. misuse.suggest(value, precision.names)
end

function types.formats(_, value)
  if type(value) == "table" or precision.presets[value] then return value end
  local names = misuse.names(precision.presets)
  local accepted = table.concat(names, ", ") .. ", HIGH/LOW"
  if type(value) ~= "string" or not value:find "/" then return nil, accepted .. misuse.suggest(value, names) end
  local ok, message = pcall(precision.candidates, value)
  if ok then return value end
  return nil, ("%s (%s)"):format(accepted, message:gsub("^[^\n]-:%d+: ", ""))
end

function types.device(_, value)
  if value == "auto" or value == "cpu" or value == "cuda" or misuse.text(value):match("^cuda:%d+$") then return value end
  return nil, "auto, cpu, cuda, cuda:N"
end

--- Names of options, in the order of M.rows.
-- @param accept function (row) -> whether it is one of them
-- @return list of names
-- @usage options.select(function(row) return row.eval end)
function M.select(accept)
  local names = {}
  for _, row in ipairs(M.rows) do
    if accept(row) then names[#names + 1] = row.name end
  end
  return names
end

--- Checks a value of an option.
-- @param row a row of M.rows
-- @param value what the user gave
-- @return the value, converted; or nil and what is accepted
function M.check(row, value)
  return types[row.type](row, value)
end

-- A value as text for the command line; numbers with as many digits as they need.
local function argument(value)
  if value == false then return "off" end
  if math.type(value) ~= "float" then return tostring(value) end
  local short = ("%.14g"):format(value)
  return tonumber(short) == value and short or ("%.17g"):format(value)
end

--- Settings as words of the command line, in the order of M.rows.
-- @param settings table by option name; nil where not given
-- @param without set of the names to leave out; nil for none
-- @return list of words
-- @usage options.words { epochs = 2, quick = true } --> { "--epochs", "2", "--quick" }
function M.words(settings, without)
  local words = {}
  for _, row in ipairs(M.rows) do
    local value, flag = settings[row.name], "--" .. row.name:gsub("_", "-")
    local left_out = value == nil or (without and without[row.name])
    if row.type == "flag" then
      if value and not left_out then words[#words + 1] = flag end
    elseif not left_out then
      local text = argument(value)
      if text:sub(1, 1) == "-" then -- else it would be taken for an option
        words[#words + 1] = flag .. "=" .. text
      else
        table.move({ flag, text }, 1, 2, #words + 1, words)
      end
    end
  end
  return words
end

--- A path as a word of the command line that is not taken for an option.
-- @param path the path
-- @return text
function M.path(path)
  return path:sub(1, 1) == "-" and "./" .. path or path
end

--- Adds one option to a parser of the argparse library.
-- @param parser the parser
-- @param row a row as in M.rows; it need not be one of them
-- @usage options.add_row(parser, { "train", "whole", min = 1, max = 1000, help = "training images" })
function M.add_row(parser, row)
  local name, kind = row[1], row[2]
  local flag = "--" .. name:gsub("_", "-")
  if kind == "flag" then
    parser:flag(flag, row.help):target(name)
    return
  end
  parser:option(flag, row.choices and ("%s: %s"):format(row.help, table.concat(row.choices, ", ")) or row.help)
    :target(name):argname(row.arg or (kind == "choice" and "NAME" or "N")):convert(function(text)
      local value, accepted = types[kind](row, text)
      if value == nil then return nil, ("%s: %s, accepted are %s"):format(flag, text, accepted) end
      return value
    end)
end

--- Adds options of the table.
-- @param parser the parser
-- @param names list of option names; all of M.names when nil
function M.add(parser, names)
  for _, name in ipairs(names or M.names) do M.add_row(parser, M.by_name[name]) end
end

return M
