--- Reads run directories. No other module of the report knows what their files contain.
--
--   config.json            settings (configuration.lua)
--   metrics.jsonl          a line per epoch (run.lua)
--   changes.jsonl          a line per change of a tensor's format: step, epoch, operator, role, from,
--                          to, cause
--   tensors.jsonl          a line per recorded step and tensor: counts of elements, overflows,
--                          underflows, exponents
--   gradient_error.jsonl   a line per epoch: errors of gradients and updates
--
-- Each file may be absent. Damaged lines are skipped and noted: a note is one line of text that
-- names file and line.
local core = require "mptl.core"
local json = require "mptl.json"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local options = require "mptl.options"
local run_directory = require "mptl.run"

local M = {}

local deepest = 32 -- most folders below a RUN
local noted_lines = 3 -- how many damaged lines of a file are noted one by one

-- Numbers that no training makes are damage, too: axes cannot show them.
local function number(x)
  return type(x) == "number" and math.abs(x) <= 1e50 and x or nil
end

-- A whole number between limits: loops, axes and columns are as long as such numbers.
local function whole(x, least, most)
  local n = number(x) and math.tointeger(x)
  return n and n >= least and n <= most and n or nil
end

local most_epochs, most_steps = options.by_name.epochs.max, 1 << 53
local least_exponent, most_exponent = -149, 127 -- of binary32 (kernels/exponents.h)

local function epoch_of(x) return whole(x, 1, most_epochs) end
local function step_of(x) return whole(x, 0, most_steps) end

local function text(x)
  return type(x) == "string" and x or nil
end

local function decode(line)
  local ok, value = pcall(json.decode, line) -- raises an error when brackets nest too deep
  return ok and type(value) == "table" and value or nil
end

-- Calls take(line) for each line of a file, decoded; take returns false or nil when a needed field
-- is missing or wrong. Returns whether the file exists.
local function each_line(run, name, take)
  local path = ("%s/%s"):format(run.dir, name)
  local file <close> = core.open(path)
  if not file then return false end
  local count, damaged = 0, {}
  local function read()
    for content in file:lines() do
      count = count + 1
      local line = decode(content)
      if not line then
        damaged[#damaged + 1] = ("%s line %d: not a JSON object, skipped"):format(path, count)
      elseif not take(line) then
        damaged[#damaged + 1] = ("%s line %d: a field is missing or wrong, skipped"):format(path, count)
      end
    end
  end
  local ok, message = pcall(read)
  if not ok then damaged = { ("%s: cannot be read (%s)"):format(path, tostring(message)) } end
  table.move(damaged, 1, math.min(#damaged, noted_lines), #run.notes + 1, run.notes)
  if #damaged > noted_lines then
    run.notes[#run.notes + 1] = ("%s: %d more damaged lines skipped"):format(path, #damaged - noted_lines)
  end
  return true
end

local function read_settings(run)
  local path = run.dir .. "/config.json"
  local file <close> = core.open(path)
  local ok, content = pcall(function() return file and file:read "a" end)
  local settings = ok and content and decode(content)
  if not settings then
    run.notes[#run.notes + 1] = ("%s: %s, its settings are unknown"):format(path, file and "not a JSON object" or "absent")
    settings = {}
  end
  return {
    script = text(settings.script) or "?", policy = text(settings.policy) or "?", dataset = text(settings.dataset) or "?",
    width = number(settings.width), ratio = number(settings.ratio), k = number(settings.k),
    threshold = number(settings.threshold), -- nil: no promotion
    seed = number(settings.seed), policy_seed = number(settings.policy_seed),
    epochs = epoch_of(settings.epochs), classes = whole(settings.classes, 1, 1 << 31), all = settings,
  }
end

local function read_epochs(run)
  local by_epoch, list = {}, {}
  each_line(run, "metrics.jsonl", function(line)
    local epoch = epoch_of(line.epoch)
    if not epoch then return false end
    local m = {}
    for _, field in ipairs(run_directory.metrics) do m[field] = number(line[field]) end
    m.epoch = epoch
    by_epoch[epoch] = m -- of two lines the later one
    return true
  end)
  for _, m in pairs(by_epoch) do list[#list + 1] = m end
  table.sort(list, function(a, b) return a.epoch < b.epoch end)
  return list
end

local function read_changes(run)
  local list = {}
  local present = each_line(run, "changes.jsonl", function(line)
    local c = {
      step = step_of(line.step), epoch = epoch_of(line.epoch), operator = text(line.operator),
      role = text(line.role), from = text(line.from), to = text(line.to), cause = text(line.cause),
    }
    local complete = c.step and c.epoch and c.operator and c.role and c.to
    if complete then list[#list + 1] = c end
    return complete
  end)
  return present and list or nil
end

-- Counts by exponent, or nil; and false when they are damaged, else true.
local function exponents(x)
  if x == nil or x == json.null then return nil, true end
  if type(x) ~= "table" or type(x.counts) ~= "table" then return nil, false end
  local first, counts = whole(x.first, least_exponent, most_exponent + 1), {}
  if not first or first + #x.counts - 1 > most_exponent then return nil, false end
  for i, n in ipairs(x.counts) do
    counts[i] = whole(n, 0, most_steps)
    if not counts[i] then return nil, false end
  end
  return #counts > 0 and { first = first, counts = counts } or nil, true
end

local function share(count, elements)
  return math.max(0, math.min((number(count) or 0) / elements, 1))
end

local function read_tensors(run)
  local list, by_key, steps, seen = {}, {}, {}, {}
  local function tensor_of(operator, role)
    local key = ("%s\0%s"):format(operator, role)
    local t = by_key[key]
    if not t then
      t = { operator = operator, role = role, points = {}, last = -1 }
      by_key[key], list[#list + 1] = t, t
    end
    return t
  end
  local present = each_line(run, "tensors.jsonl", function(line)
    local step, operator, role = step_of(line.step), text(line.operator), text(line.role)
    local elements = number(line.elements)
    if not step or not operator or not role or not elements or elements < 1 then return false end
    local e, sound = exponents(line.exponents)
    if not sound then return false end
    local t = tensor_of(operator, role)
    t.points[step] = {
      overflow = share(line.overflow, elements), underflow = share(line.underflow, elements),
      strange = math.min(share(line.inf, elements) + share(line.nan, elements), 1),
    }
    if step >= t.last then
      t.last, t.format, t.max = step, text(line.format), number(line.max)
      if e then t.exponents, t.exponents_step = e, step end
    end
    if not seen[step] then
      seen[step], steps[#steps + 1] = true, step
    end
    return true
  end)
  if not present or #list == 0 then return nil end
  table.sort(steps)
  return { list = list, steps = steps }
end

local function errors(x)
  if type(x) ~= "table" then return nil end
  return { size = number(x.size), absolute = number(x.absolute), relative = number(x.relative) }
end

local function read_gradient_error(run)
  local list = {}
  local present = each_line(run, "gradient_error.jsonl", function(line)
    local e = { epoch = epoch_of(line.epoch), gradient = errors(line.gradient), update = errors(line.update) }
    e.parameters = {}
    if not e.epoch or not e.gradient then return false end
    for _, p in ipairs(type(line.parameters) == "table" and line.parameters or {}) do
      if type(p) == "table" and text(p.name) and errors(p.gradient) then
        e.parameters[#e.parameters + 1] = { name = p.name, gradient = errors(p.gradient), update = errors(p.update) }
      end
    end
    list[#list + 1] = e
    return true
  end)
  table.sort(list, function(a, b) return a.epoch < b.epoch end)
  return present and #list > 0 and list or nil
end

--- Reads one run directory.
-- @param dir the directory
-- @return {dir =, settings =, epochs = list of metrics by epoch, notes = list of text, and, if
--   recorded, changes =, tensors =, gradient_error =}. settings: script, policy, dataset, width,
--   ratio, k, threshold, seed, policy_seed, epochs, classes, and all = everything in config.json.
--   tensors: {steps = sorted, list = {{operator, role, format, points = {overflow, underflow,
--   strange (infinite and NaN), each a share of the elements} by step, exponents = of the last step
--   that has any}}}
function M.read(dir)
  local run = { dir = dir, notes = {} }
  run.settings = read_settings(run)
  run.epochs = read_epochs(run)
  run.changes = read_changes(run)
  run.tensors = read_tensors(run)
  run.gradient_error = read_gradient_error(run)
  return run
end

local function is_run(dir)
  return lfs.attributes(dir .. "/config.json", "mode") == "file" or lfs.attributes(dir .. "/metrics.jsonl", "mode") == "file"
end

local function sorted_entries(dir, notes)
  local names = {}
  local ok, message = pcall(function()
    for name in lfs.dir(dir) do
      if name ~= "." and name ~= ".." then names[#names + 1] = name end
    end
  end)
  if not ok then notes[#notes + 1] = ("%s: cannot be read (%s), skipped"):format(dir, tostring(message)) end
  table.sort(names)
  return names
end

-- Appends the run directories at and below dir; returns how many there are. A folder that is
-- reached twice, by a link or by another RUN, is read once.
local function find(dir, depth, seen, found, notes)
  local attributes = lfs.attributes(dir)
  if not attributes or attributes.mode ~= "directory" or depth > deepest then return 0 end
  local id = ("%s:%s"):format(attributes.dev, attributes.ino)
  if seen[id] then return seen[id] end
  if is_run(dir) then
    found[#found + 1] = dir
    seen[id] = 1
    return 1
  end
  seen[id] = 0 -- a link below may lead back here
  for _, name in ipairs(sorted_entries(dir, notes)) do
    seen[id] = seen[id] + find(dir .. "/" .. name, depth + 1, seen, found, notes)
  end
  return seen[id]
end

-- Names runs by the shortest ends of their paths that differ.
local function name_runs(runs)
  local open, parts = {}, 1
  for i, run in ipairs(runs) do open[i] = run end
  while #open > 0 do
    local count, again = {}, {}
    for _, run in ipairs(open) do
      local pieces = {}
      for piece in run.dir:gmatch "[^/]+" do pieces[#pieces + 1] = piece end
      run.name = table.concat(pieces, "/", math.max(1, #pieces - parts + 1))
      if parts >= #pieces then run.name = run.dir end
      count[run.name] = (count[run.name] or 0) + 1
    end
    for _, run in ipairs(open) do
      if count[run.name] > 1 and run.name ~= run.dir then again[#again + 1] = run end
    end
    open, parts = again, parts + 1
  end
end

--- Finds and reads runs. Raises a usage error for a path that is no directory or contains no run.
-- @param paths list of run directories, or directories with run directories at any depth
-- @return list of runs (M.read), each with a name that no other run has; list of notes on what was
--   skipped
function M.load(paths)
  local seen, found, notes, runs = {}, {}, {}, {}
  for _, path in ipairs(paths) do
    local mode = lfs.attributes(path, "mode")
    local accepted = "accepted are run directories and directories of them"
    if mode ~= "directory" then
      misuse.usage("RUN %s: %s, %s", path, mode and "not a directory" or "no such directory", accepted)
    end
    if find(path:match "^(.-)/+$" or path, 0, seen, found, notes) == 0 then
      misuse.usage("RUN %s: holds no run (no config.json or metrics.jsonl in it or below), %s", path, accepted)
    end
  end
  for i, dir in ipairs(found) do
    runs[i] = M.read(dir)
    table.move(runs[i].notes, 1, #runs[i].notes, #notes + 1, notes)
  end
  name_runs(runs)
  return runs, notes
end

return M
