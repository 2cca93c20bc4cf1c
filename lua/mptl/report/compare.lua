--- What runs have in common and what distinguishes them: panels (network, width, data set), labels,
-- order, state.
local configuration = require "mptl.configuration"
local json = require "mptl.json"
local precision = require "mptl.precision"
local text = require "mptl.report.text"

local M = {}

--- The built-in policies, in the order of legends and tables. Others come behind them.
M.policies = {
  "fp32", "uniform", "operator", "amp", "uniform_low", "demotion", "increasing", "random", "top_k",
}

local order = {}
for i, name in ipairs(M.policies) do order[name] = i end

-- Settings that change results and yet do not distinguish curves.
local elsewhere = {
  script = true, dataset = true, width = true, classes = true, input = true, -- they make the panel
  policy = true, ratio = true, k = true, threshold = true, -- they make the curve and its points
  seed = true, policy_seed = true, -- of repetitions
  candidates = true, -- the formats, where these have no name
}

-- Whether runs that differ in a setting belong to different curves. Storage changes no results, but
-- memory and time.
local function distinguishes(name)
  return name == "storage" or (configuration.changes_results(name) and not elsewhere[name])
end

local without_low = { fp32 = { formats = true, storage = true }, uniform = { formats = true } }

local function ignores(run, name)
  local ignored = without_low[run.settings.policy]
  return ignored ~= nil and ignored[name] ~= nil
end

local function flatten(prefix, value, into)
  if type(value) ~= "table" then
    into[prefix] = type(value) == "number" and text.short(value) or tostring(value)
    return
  end
  for name, field in pairs(value) do flatten(prefix .. "." .. tostring(name), field, into) end
end

-- The settings that distinguish a run's curve from others: name -> text.
local function variant(run)
  local s, into = run.settings, {}
  for _, name in ipairs(configuration.settings_names) do
    if distinguishes(name) and s.all[name] ~= nil and not ignores(run, name) then
      flatten(name, s.all[name], into)
    end
  end
  into["optimizer.lr"] = nil -- the setting lr is the same
  if into.formats == "custom" then into.formats = "custom " .. json.encode(s.all.candidates) end
  return into
end

-- The most frequent value among the runs; of equally frequent ones the smallest.
local function usual(runs, get)
  local counts, best, most = {}, nil, 0
  for _, run in ipairs(runs) do
    local value = get(run)
    if value ~= nil then counts[value] = (counts[value] or 0) + 1 end
  end
  for value, n in pairs(counts) do
    if n > most or (n == most and value < best) then best, most = value, n end
  end
  return best
end

-- Appends ", name value" for settings in which a run differs from most runs of its panel.
local function label_variants(runs)
  local known, names = {}, {}
  for _, run in ipairs(runs) do
    run.variant = variant(run)
    for name in pairs(run.variant) do
      if not known[name] then known[name], names[#names + 1] = true, name end
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    -- Other names are fields of an object, which another object may not have.
    local is_option = not name:find(".", 1, true)
    local function value_of(run) -- "": the run lacks the setting
      return run.variant[name] or (not ignores(run, name) and "" or nil)
    end
    local most = usual(runs, value_of)
    for _, run in ipairs(runs) do
      local value = value_of(run)
      if value == "" then value = is_option and most ~= "" and "default" or nil end
      if value and value ~= most then
        run.curve = ("%s, %s %s"):format(run.curve, name:match "[^.]+$", text.shorten(value, 24))
      end
    end
  end
end

local function differ(runs, field)
  for _, run in ipairs(runs) do
    if run.settings[field] ~= runs[1].settings[field] then return true end
  end
  return false
end

-- How many different promotion thresholds the runs of a policy have, and how many runs do not
-- promote.
local function thresholds(runs, policy)
  local seen, count, without = {}, 0, 0
  for _, run in ipairs(runs) do
    local s = run.settings
    if s.policy == policy and not s.threshold then without = without + 1 end
    if s.policy == policy and s.threshold and not seen[s.threshold] then seen[s.threshold], count = true, count + 1 end
  end
  return count, without
end

-- "demotion", "demotion, no promotion", "operator, threshold 0.05".
local function policy_label(run, panel_runs)
  local s = run.settings
  if s.policy == "fp32" then return "fp32" end
  local promotes = precision.promotes(s.policy)
  local count, without = thresholds(panel_runs, s.policy)
  if not s.threshold and (promotes or (promotes == nil and count > 0)) then return s.policy .. ", no promotion" end
  if s.threshold and (promotes == false or count > 1 or (promotes == nil and without > 0)) then
    return ("%s, threshold %s"):format(s.policy, text.short(s.threshold))
  end
  return s.policy
end

-- Appends ", seed 2" to the labels of runs whose seed is not the usual one, or that differ in it
-- from runs of the same point. points: list of runs by point.
local function label_seeds(runs, points)
  for _, field in ipairs { "seed", "policy_seed" } do
    local most = usual(runs, function(run) return run.settings[field] end)
    for _, run in ipairs(runs) do
      local value = run.settings[field]
      if value and (value ~= most or differ(points[run.point], field)) then
        run.label = ("%s, %s %s"):format(run.label, (field:gsub("_", " ")), text.short(value))
      end
    end
  end
end

-- Sets three texts of each of a panel's runs: curve, which runs of a curve share; point, which runs
-- share that differ in their seeds only; and label, which no other run has.
local function label(runs)
  for _, run in ipairs(runs) do run.curve = policy_label(run, runs) end
  label_variants(runs)
  local points, count = {}, {}
  for _, run in ipairs(runs) do
    local s = run.settings
    local size = (s.ratio and " r=" .. text.short(s.ratio) or "") .. (s.k and " k=" .. text.short(s.k) or "")
    run.point = run.curve .. size
    run.label = s.policy .. size .. run.curve:sub(#s.policy + 1)
    points[run.point] = points[run.point] or {}
    table.insert(points[run.point], run)
  end
  label_seeds(runs, points)
  for _, run in ipairs(runs) do count[run.label] = (count[run.label] or 0) + 1 end
  for _, run in ipairs(runs) do
    if count[run.label] > 1 then run.label = ("%s (%s)"):format(run.label, run.name) end
  end
end

-- Whether a comes before b: by policy, curve, ratio, k and seeds, then by name.
local function before(a, b)
  local s, t = a.settings, b.settings
  local p, q = order[s.policy] or math.huge, order[t.policy] or math.huge
  if p ~= q then return p < q end
  if a.curve ~= b.curve then return a.curve < b.curve end
  for _, field in ipairs { "ratio", "k", "seed", "policy_seed" } do
    local x, y = s[field] or -1, t[field] or -1
    if x ~= y then return x < y end
  end
  return a.name < b.name
end

--- Divides runs by network, width and data set, and sorts them by policy, ratio and seed.
-- @param runs list from runs.load; each gets panel, curve, point and label
-- @return list of {title =, script =, width =, dataset =, runs =}
function M.panels(runs)
  local panels, by_title = {}, {}
  for _, run in ipairs(runs) do
    local s = run.settings
    local title = s.script .. (s.width and (", width %s"):format(text.short(s.width)) or "") .. ", " .. s.dataset
    local panel = by_title[title]
    if not panel then
      panel = { title = title, script = s.script, width = s.width or 0, dataset = s.dataset, runs = {} }
      by_title[title], panels[#panels + 1] = panel, panel
    end
    panel.runs[#panel.runs + 1] = run
    run.panel = panel
  end
  for _, panel in ipairs(panels) do
    label(panel.runs)
    table.sort(panel.runs, before)
  end
  table.sort(panels, function(a, b)
    if a.dataset ~= b.dataset then return a.dataset < b.dataset end
    if a.script ~= b.script then return a.script < b.script end
    return a.width > b.width
  end)
  return panels
end

--- The metrics of a run's last epoch.
-- @param run the run
-- @return metrics; nil when no epoch was finished
function M.last(run)
  return run.epochs[#run.epochs]
end

--- The metrics of the epoch in which a field was largest.
-- @param run the run
-- @param field a field of the metrics
-- @return metrics; nil when no epoch has it
function M.best(run, field)
  local best
  for _, m in ipairs(run.epochs) do
    if m[field] and (not best or m[field] > best[field]) then best = m end
  end
  return best
end

--- Whether a run has finished all its epochs.
-- @param run the run
-- @return true or false; true when the number of epochs is unknown, but some are finished
function M.finished(run)
  local last, wanted = M.last(run), run.settings.epochs
  return last ~= nil and (wanted == nil or last.epoch >= wanted)
end

--- The state of a run: "finished", "unfinished" or "no epoch yet"; "diverged" when a loss is not
-- finite, or the accuracy fell back to at most 1.5 times that of chance; "at chance" when it never
-- rose above.
-- @param run the run
-- @return text
function M.state(run)
  local last, best = M.last(run), M.best(run, "test_acc")
  if not last then return "no epoch yet" end
  if not last.train_loss or not last.test_loss then return "diverged" end
  local chance = run.settings.classes and 150 / run.settings.classes
  if chance and last.test_acc and last.test_acc <= chance then
    if best.test_acc > 2 * chance then return "diverged" end
    if M.finished(run) and chance <= 75 then return "at chance" end
  end
  return M.finished(run) and "finished" or "unfinished"
end

return M
