--- `mptl bench loader`: how fast training batches are made.
local dkjson = require "dkjson"
local core = require "mptl.core"
local data = require "mptl.data"
local options = require "mptl.options"
local threads = require "mptl.threads"

local M = { name = "loader", summary = "images per second that the data loader makes, augmented and normalised" }

-- An argparse converter: accept(number) returns the value, or nil for a number that is not
-- accepted.
local function number(option, accept, what)
  return function(text)
    local value = accept(tonumber(text))
    if not value then return nil, ("%s: %s, must be %s"):format(option, text, what) end
    return value
  end
end

local function positive_integer(value)
  local integer = math.tointeger(value)
  return integer and integer > 0 and integer
end

local function positive(value)
  return value and value > 0 and value < math.huge and value
end

--- Adds the options.
-- @param parser an argparse command
function M.configure(parser)
  local function integer(option, summary, default)
    local convert = number(option, positive_integer, "a positive integer")
    parser:option(option, summary, default):argname("N"):convert(convert)
  end
  parser:option("--dataset", "data set: " .. table.concat(data.names, ", "), "synthetic")
  parser:option("--data", "directory of the data set"):argname("DIR")
  options.add(parser, { "image_size", "on_bad_image" })
  integer("--limit-train", "keep the first N images")
  integer("--batch", "images a batch", "128")
  integer("--threads", "worker threads", "1")
  local convert = number("--seconds", positive, "a positive number")
  parser:option("--seconds", "how many seconds to measure", "3"):argname("S"):convert(convert)
  parser:flag("--json", "print one JSON object")
end

--- Takes batches for a while, as fast as the loader makes them.
-- @param opened the result of data.open
-- @param how `batch`, `threads`, `seconds`
-- @return images per second, over whole batches; the first ones, which fill the ring, do not count
function M.benchmark(opened, how)
  local loader = core.loader(opened.train, { batch = how.batch, threads = how.threads, shuffle = true, augment = true,
    mean = opened.mean, std = opened.std })
  local epoch, images = 0, 0
  loader:start(epoch)
  local function take()
    local n = loader:next()
    if not n then
      epoch = epoch + 1
      loader:start(epoch)
      n = loader:next()
    end
    images = images + n
  end
  for _ = 1, 8 do take() end
  images = 0
  local from = core.time()
  local elapsed
  repeat
    take()
    elapsed = core.time() - from
  until elapsed >= how.seconds
  return images / elapsed
end

--- Runs the command.
-- @param args the parsed options
-- @return the exit status
function M.run(args)
  threads.warn(("--threads %d"):format(args.threads), args.threads)
  local opened = data.open{ dataset = args.dataset, dir = args.data, limit_train = args.limit_train, limit_test = 1,
    image_size = args.image_size, on_bad_image = args.on_bad_image }
  local how = { batch = args.batch, threads = args.threads, seconds = args.seconds }
  local result = { dataset = args.dataset, threads = args.threads, images_per_s = M.benchmark(opened, how) }
  if args.json then
    print(dkjson.encode(result, { keyorder = { "dataset", "images_per_s", "threads" } }))
  else
    print(("%s: %.0f images/s, %d thread%s, batch %d"):format(result.dataset, result.images_per_s, args.threads,
      args.threads == 1 and "" or "s", args.batch))
  end
  return 0
end

return M
