--- Where the time of a training step goes: seconds, arithmetic and memory traffic by operator.
local json = require "mptl.json"

local M = {}

local Profile = {}
Profile.__index = Profile

-- Multiplications and additions of a convolution's or linear layer's forward: two a weight and output position.
local function forward_flop(graph, batch)
  local flop, operators = {}, graph:operators()
  for _, p in ipairs(graph:parameters()) do
    local op = operators[p.operator + 1]
    if op.gemm and p.name:match "%.weight$" then flop[p.operator] = 2 * batch * op.numel * (p.numel // p.dims[1]) end
  end
  return flop
end

-- Bytes that each direction has to move at least: what its formulas read and what they write, once, in binary32.
local function least_bytes(operators, op, batch)
  local inputs = 0
  for _, i in ipairs(op.inputs) do inputs = inputs + operators[i + 1].numel end
  local backward = op.numel + inputs -- the gradients
  if op.backward_reads_in then backward = backward + inputs end
  if op.backward_reads_out then backward = backward + op.numel end
  return 4 * batch * (inputs + op.numel), op.index > 0 and 4 * batch * backward or 0
end

--- A profile of a graph's steps.
-- @param graph the engine's graph
-- @param batch samples a step
-- @return the profile
function M.create(graph, batch)
  local self = setmetatable({ rows = {}, steps = 0, seconds = 0.0 }, Profile)
  local operators, flop = graph:operators(), forward_flop(graph, batch)
  for i, op in ipairs(operators) do
    local forward, backward = least_bytes(operators, op, batch)
    -- backward: the gradient of the weights and, but for the first layer, that of the input
    local directions = op.inputs[1] == 0 and 1 or 2
    self.rows[i] = {
      name = op.name, kind = op.kind, forward = 0.0, backward = 0.0, bytes = forward + backward,
      flop = (flop[op.index] or 0) * (1 + directions),
    }
  end
  return self
end

--- Adds a step.
-- @param program whose last step it was
-- @param seconds of the whole step
function Profile:add(program, seconds)
  for i, t in ipairs(program:times()) do
    local row = self.rows[i]
    row.forward, row.backward = row.forward + t.forward, row.backward + t.backward
  end
  self.steps, self.seconds = self.steps + 1, self.seconds + seconds
end

local order = { "operator", "kind", "forward_ms", "backward_ms", "gflop_per_s", "gb_per_s", "share" }

--- The means over the steps.
-- @return list of rows as `--profile --json` prints them; the share of the step's time that they explain
function Profile:table()
  local result, explained = {}, 0.0
  for i, row in ipairs(self.rows) do
    local time = row.forward + row.backward
    explained = explained + time
    result[i] = json.object(order, {
      operator = row.name, kind = row.kind,
      forward_ms = 1000 * row.forward / self.steps, backward_ms = 1000 * row.backward / self.steps,
      gflop_per_s = row.flop > 0 and 1e-9 * row.flop * self.steps / time or json.null,
      gb_per_s = 1e-9 * row.bytes * self.steps / time, share = time / self.seconds,
    })
  end
  return result, explained / self.seconds
end

--- The table as text, with sums by kind.
-- @return lines
function Profile:text()
  local rows, explained = self:table()
  local lines, kinds, names, width = {}, {}, {}, 8
  for _, row in ipairs(rows) do width = math.max(width, #row.operator) end
  local format = "%-" .. width .. "s %-12s %11s %11s %9s %7s %7s"
  lines[1] = format:format("operator", "kind", "forward ms", "backward ms", "GFLOP/s", "GB/s", "share")
  local function line(name, kind, forward, backward, gflop, gb, share)
    lines[#lines + 1] = format:format(name, kind, ("%.2f"):format(forward), ("%.2f"):format(backward),
      type(gflop) == "number" and ("%.0f"):format(gflop) or "", gb and ("%.1f"):format(gb) or "", ("%.1f%%"):format(100 * share))
  end
  for _, row in ipairs(rows) do
    line(row.operator, row.kind, row.forward_ms, row.backward_ms, row.gflop_per_s, row.gb_per_s, row.share)
    local sum = kinds[row.kind]
    if not sum then
      sum = { 0.0, 0.0, 0.0 }
      kinds[row.kind], names[#names + 1] = sum, row.kind
    end
    sum[1], sum[2], sum[3] = sum[1] + row.forward_ms, sum[2] + row.backward_ms, sum[3] + row.share
  end
  lines[#lines + 1] = ""
  table.sort(names, function(a, b) return kinds[a][3] > kinds[b][3] end)
  for _, kind in ipairs(names) do line("all", kind, kinds[kind][1], kinds[kind][2], nil, nil, kinds[kind][3]) end
  lines[#lines + 1] = ("operators explain %.1f%% of %.1f ms a step; the rest is the update and the calls"):format(100 * explained,
    1000 * self.seconds / self.steps)
  return table.concat(lines, "\n") .. "\n"
end

return M
