--- Where the time of a training step goes: seconds, arithmetic and memory traffic by operator, beside what the machine can do.
--
-- Operators that run as one stage (batch norm, add, ReLU) are one row, under the name of the last. A row's floor is the time that
-- its multiplications take at the machine's measured rate in their types, or its bytes at that of copying, whichever is longer.
local compute = require "mptl.compute"
local json = require "mptl.json"
local optim = require "mptl.optim"

local M = {}

local Profile = {}
Profile.__index = Profile

-- Multiplications and additions of a convolution's or linear layer's forward: two a weight and output position.
local function forward_flop(plan, graph)
  local flop, operators = {}, graph:operators()
  for _, p in ipairs(graph:parameters()) do
    local op = operators[p.operator + 1]
    if op.gemm and p.name:match "%.weight$" then flop[p.operator] = 2 * plan.batch * op.numel * (p.numel // p.dims[1]) end
  end
  return flop
end

-- Seconds that a pass of this many operations takes at the machine's rate; 0 where that could not be measured.
local function multiply_seconds(flop, pass, machine)
  local times, kind = pass:match "^(%d)x(.*)$" -- so many products for one
  return flop * (times or 1) / (1e9 * (machine[(kind or pass) .. "_gflop_per_s"] or math.huge))
end

--- A profile of a graph's steps.
-- @param graph the engine's graph
-- @param plan its plan (script.plan)
-- @param settings `compute`, `device`, `optimizer` (its name); `machine`: what core.floor measured of the device
-- @return the profile
function M.create(graph, plan, settings)
  local self = setmetatable({ rows = {}, steps = 0, seconds = 0.0, products = {}, machine = settings.machine }, Profile)
  local flop = forward_flop(plan, graph)
  for i, op in ipairs(plan.graph:operators()) do
    local row = { index = op.index, name = op.name, kind = op.kind, forward = 0.0, backward = 0.0, bytes = 0, flop = 0,
      floor = { 0.0, 0.0 } }
    local forward, data, weights = compute.passes(op, settings.compute, settings.device)
    if forward then
      -- The first layer has no gradient of its input.
      local has_data = op.inputs[1].kind ~= "input"
      row.flop = flop[op.index] * (has_data and 3 or 2)
      row.floor[1] = multiply_seconds(flop[op.index], forward, settings.machine)
      row.floor[2] = multiply_seconds(flop[op.index], weights, settings.machine)
        + (has_data and multiply_seconds(flop[op.index], data, settings.machine) or 0)
    end
    self.rows[i] = row
  end
  self.update = { name = "update", kind = "update", forward = 0.0, backward = 0.0, bytes = 0, flop = 0, floor = { 0.0, 0.0 } }
  local accesses = 3 + 2 * #optim.states(settings.optimizer) -- reads gradient, master and state, writes both again
  for _, p in ipairs(graph:parameters()) do
    if not p.buffer then self.update.bytes = self.update.bytes + accesses * 4 * p.numel end
  end
  self.update.floor[1] = self.update.bytes / (1e9 * settings.machine.copy_gb_per_s)
  return self
end

--- Adds a step.
-- @param program whose last step it was
-- @param seconds of the whole step
function Profile:add(program, seconds)
  local costs = program:costs()
  local kinds = {}
  for i, cost in ipairs(costs) do
    local row, stage = self.rows[i], cost.stage + 1
    kinds[stage] = kinds[stage] and kinds[stage] .. "+" .. row.kind or row.kind
    row.forward, row.backward = row.forward + cost.forward, row.backward + cost.backward
    row.bytes, row.ends_stage = cost.forward_bytes + cost.backward_bytes, stage == i
    row.memory_floor = { cost.forward_bytes / (1e9 * self.machine.copy_gb_per_s),
      cost.backward_bytes / (1e9 * self.machine.copy_gb_per_s) }
    if stage == i then row.kinds = kinds[stage] end
  end
  self.update.forward, self.update.ends_stage = self.update.forward + costs.update, true
  self.products = program:products() -- of this step: formats may have been promoted
  self.steps, self.seconds = self.steps + 1, self.seconds + seconds
end

local order = { "operator", "kind", "forward_ms", "backward_ms", "gflop_per_s", "gb_per_s", "floor_ms", "floor_share", "share",
  "products" }

local function describe(self, row)
  local time, memory = row.forward + row.backward, row.memory_floor or { 0.0, 0.0 }
  local floor = math.max(row.floor[1], memory[1]) + math.max(row.floor[2], memory[2])
  return json.object(order, {
    operator = row.name, kind = row.kinds or row.kind,
    forward_ms = 1000 * row.forward / self.steps, backward_ms = 1000 * row.backward / self.steps,
    gflop_per_s = row.flop > 0 and 1e-9 * row.flop * self.steps / time or json.null,
    gb_per_s = 1e-9 * row.bytes * self.steps / time,
    floor_ms = 1000 * floor, floor_share = floor * self.steps / time,
    share = time / self.seconds, products = compute.products_table(self.products, row.index),
  })
end

--- The means over the steps.
-- @return list of rows as `--profile --json` prints them; the share of the step's time that they explain
function Profile:table()
  local result, explained = {}, 0.0
  local function take(row)
    if not row.ends_stage then return end
    result[#result + 1] = describe(self, row)
    explained = explained + row.forward + row.backward
  end
  for _, row in ipairs(self.rows) do take(row) end
  take(self.update)
  return result, explained / self.seconds
end

--- The table as text, with sums by kind.
-- @return lines
function Profile:text()
  local rows, explained = self:table()
  local lines, kinds, names, width, kind_width = {}, {}, {}, 8, 12
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
  for _, row in ipairs(rows) do
    line(row.operator, row.kind, row)
    local sum = kinds[row.kind]
    if not sum then
      sum = { forward_ms = 0.0, backward_ms = 0.0, floor_ms = 0.0, share = 0.0 }
      kinds[row.kind], names[#names + 1] = sum, row.kind
    end
    for name, value in pairs(sum) do sum[name] = value + row[name] end
  end
  lines[#lines + 1] = ""
  table.sort(names, function(a, b) return kinds[a].share > kinds[b].share end)
  local floor = 0.0
  for _, kind in ipairs(names) do
    line("all", kind, kinds[kind])
    floor = floor + kinds[kind].floor_ms
  end
  local step = 1000 * self.seconds / self.steps
  lines[#lines + 1] = ("these rows explain %.1f%% of %.1f ms a step; their floors are %.1f ms, %.1f%% of it"):format(
    100 * explained, step, floor, 100 * floor / step)
  local rates = {}
  for _, kind in ipairs { "f32", "tf32", "bf16", "fp8" } do
    local rate = self.machine[kind .. "_gflop_per_s"]
    if rate then rates[#rates + 1] = ("%.0f GFLOP/s in %s"):format(rate, kind) end
  end
  lines[#lines + 1] = ("floors by the device's best: %s, copying %.1f GB/s (read and written)"):format(
    table.concat(rates, ", "), self.machine.copy_gb_per_s)
  local operators = {}
  for i, row in ipairs(self.rows) do operators[i - 1] = row.name end
  for _, text in ipairs(compute.products_text(self.products, operators)) do lines[#lines + 1] = text end
  return table.concat(lines, "\n") .. "\n"
end

return M
