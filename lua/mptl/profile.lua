--- Where the time of a training step goes: seconds, arithmetic and memory traffic by operator,
-- beside the device's peaks.
--
-- Operators that run as one stage (batch norm, add, ReLU) are one row, under the name of the last.
-- A row's floor is the longer of two times: its multiplications at the device's peak rate for their
-- types, and its memory traffic at the peak rate of copying.
local compute = require "mptl.compute"
local json = require "mptl.json"
local optim = require "mptl.optim"

local M = {}

local Profile = {}
Profile.__index = Profile

-- Multiplications and additions of the forward pass of convolutions and linear layers: two for each
-- weight and output position.
local function forward_flop(plan, graph)
  local flop, operators = {}, graph:operators()
  for _, p in ipairs(graph:parameters()) do
    local op = operators[p.operator + 1]
    if op.gemm and p.name:match "%.weight$" then flop[p.operator] = 2 * plan.batch * op.numel * (p.numel // p.dims[1]) end
  end
  return flop
end

-- Seconds that a pass of this many operations takes at the device's peak; 0 where the peak is
-- unknown. pass: the type of its product, such as "bf16", or "2xbf16" where two products make one.
local function multiply_seconds(flop, pass, peaks)
  local times, product_type = pass:match "^(%d)x(.*)$"
  local rate = peaks[(product_type or pass) .. "_gflop_per_s"] or math.huge
  return flop * (times or 1) / (1e9 * rate)
end

-- floor: seconds of the forward pass, and of both backward passes.
local function new_row(name, kind)
  return {
    name = name, kind = kind, forward = 0.0, backward = 0.0, bytes = 0, flop = 0, floor = { 0.0, 0.0 },
  }
end

local function operator_row(op, flop, settings)
  local row = new_row(op.name, op.kind)
  row.index = op.index
  local forward, data, weights = compute.passes(op, settings.compute, settings.device)
  if not forward then return row end
  local has_data = op.inputs[1].kind ~= "input" -- the gradient of the images is not computed
  row.flop = flop * (has_data and 3 or 2)
  row.floor[1] = multiply_seconds(flop, forward, settings.peaks)
  row.floor[2] = multiply_seconds(flop, weights, settings.peaks)
  if has_data then row.floor[2] = row.floor[2] + multiply_seconds(flop, data, settings.peaks) end
  return row
end

local function update_row(graph, settings)
  local row = new_row("update", "update")
  -- The update reads gradient, master and optimizer state, and writes the last two.
  local accesses = 3 + 2 * #optim.states(settings.optimizer)
  for _, p in ipairs(graph:parameters()) do
    if not p.buffer then row.bytes = row.bytes + accesses * 4 * p.numel end
  end
  row.floor[1] = row.bytes / (1e9 * settings.peaks.copy_gb_per_s)
  return row
end

--- A profile of a graph's steps.
-- @param graph the engine's graph
-- @param plan its plan (script.plan)
-- @param settings `compute`, `device`, `optimizer` (its name); `peaks`: the device's peak rates, from core.peaks
-- @return the profile
function M.create(graph, plan, settings)
  local self = setmetatable({ rows = {}, steps = 0, seconds = 0.0, products = {}, peaks = settings.peaks }, Profile)
  local flop = forward_flop(plan, graph)
  for i, op in ipairs(plan.graph:operators()) do self.rows[i] = operator_row(op, flop[op.index], settings) end
  self.update = update_row(graph, settings)
  return self
end

--- Adds a step.
-- @param program the program that made it, and no other step since
-- @param seconds duration of the whole step
function Profile:add(program, seconds)
  local costs = program:costs()
  local kinds = {}
  for i, cost in ipairs(costs) do
    local row, stage = self.rows[i], cost.stage + 1
    kinds[stage] = kinds[stage] and kinds[stage] .. "+" .. row.kind or row.kind
    row.forward, row.backward = row.forward + cost.forward, row.backward + cost.backward
    row.bytes, row.ends_stage = cost.forward_bytes + cost.backward_bytes, stage == i
    row.memory_floor = { cost.forward_bytes / (1e9 * self.peaks.copy_gb_per_s),
      cost.backward_bytes / (1e9 * self.peaks.copy_gb_per_s) }
    if stage == i then row.kinds = kinds[stage] end
  end
  self.update.forward, self.update.ends_stage = self.update.forward + costs.update, true
  self.products = program:products() -- of the last step: promotions may change them
  self.steps, self.seconds = self.steps + 1, self.seconds + seconds
end

local order = { "operator", "kind", "forward_ms", "backward_ms", "gflop_per_s", "gb_per_s", "floor_ms", "floor_share", "share",
  "products" }

local function describe(self, row, products)
  local time, memory = row.forward + row.backward, row.memory_floor or { 0.0, 0.0 }
  local floor = math.max(row.floor[1], memory[1]) + math.max(row.floor[2], memory[2])
  return json.object(order, {
    operator = row.name, kind = row.kinds or row.kind,
    forward_ms = 1000 * row.forward / self.steps, backward_ms = 1000 * row.backward / self.steps,
    gflop_per_s = row.flop > 0 and 1e-9 * row.flop * self.steps / time or json.null,
    gb_per_s = 1e-9 * row.bytes * self.steps / time,
    floor_ms = 1000 * floor, floor_share = floor * self.steps / time,
    share = time / self.seconds, products = products[row.index],
  })
end

--- The means over the steps.
-- @return list of rows as `--profile --json` prints them; the share of the step's time that all
--   rows together take
function Profile:table()
  local result, explained, products = {}, 0.0, compute.products_table(self.products)
  local function take(row)
    if not row.ends_stage then return end
    result[#result + 1] = describe(self, row, products)
    explained = explained + row.forward + row.backward
  end
  for _, row in ipairs(self.rows) do take(row) end
  take(self.update)
  return result, explained / self.seconds
end

-- Sums of rows by kind: list of {kind, sums}, the largest share first; and the sum of all floors.
local function sums_by_kind(rows)
  local by_kind, list, floor = {}, {}, 0.0
  for _, row in ipairs(rows) do
    local sum = by_kind[row.kind]
    if not sum then
      sum = { forward_ms = 0.0, backward_ms = 0.0, floor_ms = 0.0, share = 0.0 }
      by_kind[row.kind], list[#list + 1] = sum, { row.kind, sum }
    end
    for name, value in pairs(sum) do sum[name] = value + row[name] end
  end
  table.sort(list, function(a, b) return a[2].share > b[2].share end)
  for _, entry in ipairs(list) do floor = floor + entry[2].floor_ms end
  return list, floor
end

local function peaks_text(peaks)
  local rates = {}
  for _, product_type in ipairs { "f32", "tf32", "bf16", "fp8" } do
    local rate = peaks[product_type .. "_gflop_per_s"]
    if rate then rates[#rates + 1] = ("%.0f GFLOP/s in %s"):format(rate, product_type) end
  end
  return ("floors by the device's peaks: %s, copying %.1f GB/s (read and written)"):format(
    table.concat(rates, ", "), peaks.copy_gb_per_s)
end

--- The table as text, with sums by kind.
-- @return text of several lines
function Profile:text()
  local rows, explained = self:table()
  local lines, width, kind_width = {}, 8, 12
  for _, row in ipairs(rows) do
    width, kind_width = math.max(width, #row.operator), math.max(kind_width, #row.kind)
  end
  local format = "%-" .. width .. "s %-" .. kind_width .. "s %11s %11s %9s %7s %9s %9s %7s"
  local function line(name, kind, row)
    lines[#lines + 1] = format:format(name, kind, ("%.2f"):format(row.forward_ms), ("%.2f"):format(row.backward_ms),
      type(row.gflop_per_s) == "number" and ("%.0f"):format(row.gflop_per_s) or "",
      row.gb_per_s and ("%.1f"):format(row.gb_per_s) or "", ("%.2f"):format(row.floor_ms),
      ("%.0f%%"):format(100 * row.floor_ms / (row.forward_ms + row.backward_ms)), ("%.1f%%"):format(100 * row.share))
  end
  lines[1] = format:format("operator", "kind", "forward ms", "backward ms", "GFLOP/s", "GB/s", "floor ms", "of floor", "share")
  for _, row in ipairs(rows) do line(row.operator, row.kind, row) end
  lines[#lines + 1] = ""
  local sums, floor = sums_by_kind(rows)
  for _, entry in ipairs(sums) do line("all", entry[1], entry[2]) end
  local step = 1000 * self.seconds / self.steps
  lines[#lines + 1] = ("these rows explain %.1f%% of %.1f ms a step; their floors are %.1f ms, %.1f%% of it"):format(
    100 * explained, step, floor, 100 * floor / step)
  lines[#lines + 1] = peaks_text(self.peaks)
  local operators = {}
  for i, row in ipairs(self.rows) do operators[i - 1] = row.name end
  for _, text in ipairs(compute.products_text(self.products, operators)) do lines[#lines + 1] = text end
  return table.concat(lines, "\n") .. "\n"
end

return M
