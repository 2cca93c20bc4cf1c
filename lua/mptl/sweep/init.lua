--- Sweep files: lists and grids of training runs. A sweep file returns
--   { name = "...",                      -- else the file's
--     common = { dataset = "cifar10", epochs = 15, ... },                     -- of all runs
--     runs = { { policy = "fp32" }, { policy = "demotion", ratio = { 0.3, 0.5 } }, ... } }
-- Fields are `script` and the options of mptl train. A list as a value makes a run of each of its
-- values; several lists in an entry (or in common) make a run of every combination. A run's name,
-- which is also its directory's, says what varies: "resnet18_cifar-demotion-ratio0.5".
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local options = require "mptl.options"

local M = {}

-- Options that the sweep itself sets for its runs.
local own = {}
for _, name in ipairs(options.select(function(row) return row.sweep == false end)) do own[name] = true end

--- Names of the options that are settings of runs.
M.options = options.select(function(row) return row.sweep ~= false end)

--- Names of all settings of runs.
M.fields = { "script", table.unpack(M.options) }

local fields = M.fields

local function is_field(name)
  for _, field in ipairs(fields) do
    if field == name then return true end
  end
end

local function is_file(path)
  return lfs.attributes(path, "mode") == "file"
end

-- A path in the sweep file: relative to the file's folder if it exists there.
local function beside(sweep_path, value)
  local dir = sweep_path:match "^(.*/)" or ""
  return is_file(dir .. value) and dir .. value or value
end

-- Checks a value of a field. where: the entry, for messages.
local function check(path, where, name, value)
  if name == "script" then
    if type(value) == "string" and value ~= "" then return beside(path, value) end
    error(("%s: %s: script: %s, must be a path or a model's name"):format(path, where, misuse.text(value)), 0)
  end
  if name == "policy" and type(value) == "string" and value:match "%.lua$" then value = beside(path, value) end
  local result, accepted = options.check(options.by_name[name], value)
  if result ~= nil then return result end
  error(("%s: %s: %s: %s, accepted are %s"):format(path, where, name, misuse.text(value), accepted), 0)
end

-- The fields of an entry, each as a list of checked values.
local function lists(path, where, entry)
  if type(entry) ~= "table" then error(("%s: %s: %s, must be a table of settings"):format(path, where, type(entry)), 0) end
  local result = {}
  for name, value in pairs(entry) do
    if not is_field(name) then
      error(("%s: %s: unknown setting %s%s, accepted are %s"):format(path, where, misuse.text(name),
        misuse.suggest(name, fields), table.concat(fields, ", ")), 0)
    end
    if type(value) ~= "table" then value = { value } end
    if rawlen(value) == 0 then error(("%s: %s: %s: the list is empty"):format(path, where, name), 0) end
    result[name] = {}
    for i = 1, rawlen(value) do result[name][i] = check(path, where, name, rawget(value, i)) end
  end
  return result
end

-- Every combination of the lists, as settings by name; the first field of `fields` varies slowest.
local function combinations(by_name)
  local result = { {} }
  for _, name in ipairs(fields) do
    if by_name[name] then
      local longer = {}
      for _, settings in ipairs(result) do
        for _, value in ipairs(by_name[name]) do
          local copy = {}
          for k, v in pairs(settings) do copy[k] = v end
          copy[name] = value
          longer[#longer + 1] = copy
        end
      end
      result = longer
    end
  end
  return result
end

-- A value as part of a directory's name.
local function word(name, value)
  local text = tostring(value)
  if name == "script" or name == "policy" then return (text:match("([^/]+)$"):gsub("%.lua$", "")) end
  if value == false then text = "off" end
  if math.type(value) == "float" then text = ("%.14g"):format(value) end
  return (options.by_name[name].type == "choice" and text or name:gsub("_", "") .. text):gsub("[^%w.+_-]", "_")
end

-- The name of a run: its script, and the settings that vary.
local function run_name(settings, varies)
  local words = {}
  for _, name in ipairs(fields) do
    if settings[name] ~= nil and (name == "script" or varies[name]) then words[#words + 1] = word(name, settings[name]) end
  end
  return table.concat(words, "-")
end

-- Appends the runs of an entry. The entry's settings win over the common ones, and the command
-- line's over both.
local function add_runs(list, path, where, entry, common, overrides)
  local by_name, varies = {}, {}
  for name, values in pairs(common) do by_name[name], varies[name] = values, #values > 1 end
  for name, values in pairs(lists(path, where, entry)) do by_name[name], varies[name] = values, true end
  for name, value in pairs(overrides) do
    if varies[name] then misuse.usage("--%s: %s varies it itself, in %s", name:gsub("_", "-"), path, where) end
    by_name[name] = { value }
  end
  if not by_name.script then error(("%s: %s: no script"):format(path, where), 0) end
  -- Several runs with a thread each are faster than one run with many threads.
  by_name.threads = by_name.threads or { 1 }
  for _, settings in ipairs(combinations(by_name)) do
    list[#list + 1] = { name = run_name(settings, varies), settings = settings, where = where }
  end
end

--- The values from first to last.
-- @param first a number
-- @param last a number
-- @param step the distance between values, above 0
-- @return a list; values are rounded to 12 decimals, so that 3 * 0.1 is 0.3
-- @usage { policy = "demotion", ratio = sweep.range(0, 1, 0.1) }
function M.range(first, last, step)
  if not (type(step) == "number" and step > 0) then misuse.raise("range: step %s, must be above 0", misuse.text(step)) end
  local list = {}
  for i = 0, math.floor((last - first) / step + 1e-9) do
    list[#list + 1] = tonumber(("%.12f"):format(first + i * step))
  end
  return list
end

--- Loads a sweep file.
-- @param path the file
-- @param overrides settings from the command line, for all runs; nil for none
-- @return {name =, path =, runs = list of {name =, settings =}}
function M.load(path, overrides)
  if not is_file(path) then misuse.usage("sweep %s: no such file", path) end
  local chunk, message = loadfile(path, "t")
  if not chunk then error(message, 0) end
  local file = chunk()
  if type(file) ~= "table" or type(file.runs) ~= "table" then
    error(("%s: returned %s, must return { common = {...}, runs = { {...}, ... } }"):format(path,
      type(file) == "table" and "a table without runs" or "a " .. type(file)), 0)
  end
  local ok, mistake = pcall(misuse.check_fields, "sweep", file, { "name", "common", "runs" })
  if not ok then error(("%s: %s"):format(path, mistake), 0) end
  if file.name ~= nil and (type(file.name) ~= "string" or file.name == "" or file.name:find "%c") then
    error(("%s: name: %s, must be text, on one line"):format(path, misuse.text(file.name)), 0)
  end
  local common, list = lists(path, "common", file.common or {}), {}
  for i, entry in ipairs(file.runs) do add_runs(list, path, ("runs[%d]"):format(i), entry, common, overrides or {}) end
  if #list == 0 then error(("%s: runs is empty"):format(path), 0) end
  local seen = {}
  for _, run in ipairs(list) do
    local other = seen[run.name]
    if other then error(("%s: %s and %s both make the run %s"):format(path, other.where, run.where, run.name), 0) end
    seen[run.name] = run
  end
  return { name = file.name or path:match("([^/]+)$"):gsub("%.lua$", ""), path = path, runs = list }
end

--- Settings as options of the command line, without the script, in a fixed order.
-- @param settings settings of a run
-- @return list of words
function M.arguments(settings)
  return options.words(settings, own)
end

return M
