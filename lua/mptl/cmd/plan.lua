--- mptl plan: shows groups, assignment, ratios and memory; trains nothing.
local compute = require "mptl.compute"
local core = require "mptl.core"
local json = require "mptl.json"
local options = require "mptl.options"
local plan_table = require "mptl.plan_table"
local script = require "mptl.script"

local M = { name = "plan", summary = "show groups, precision assignment and ratios of a script; trains nothing" }

local roles = { "v", "dv", "theta", "dtheta" }

function M.configure(parser)
  parser:argument("script", "model script: a path, or a name of an installed one")
  options.add(parser)
end

-- How the device's library computes the products, as far as it can report that. On a GPU this makes
-- cuDNN's execution plans, unless they are in the cache.
local function predict_products(cfg, assignment)
  return core.predict_products(assignment, { storage = cfg.storage, compute = cfg.compute, device = cfg.device })
end

local function groups_text(out, t)
  local total = 0
  for _, g in ipairs(t.groups) do total = total + g.numel end
  out("%5s %12s %11s %12s %7s  %s", "group", "activations", "parameters", "elements", "share", "precision")
  for _, g in ipairs(t.groups) do
    out("%5d %12d %11d %12d %6.2f%%  %s", g.group, g.activations, g.parameters, g.numel, 100 * g.numel / total,
      g.low and "low" or "high")
  end
end

-- The type of a convolution's or linear layer's products; the types of forward, gradient of the
-- input and gradient of the weights where these differ.
local function compute_text(cfg, op)
  local forward, data, weights = compute.passes(op, cfg.compute, cfg.device)
  if not forward then return "" end
  if forward == data and data == weights then return forward end
  return table.concat({ forward, data, weights }, "/")
end

local function tensors_text(out, cfg, plan, t)
  local name_width = 8
  for _, row in ipairs(t.tensors) do name_width = math.max(name_width, #row.name) end
  local line = "%5s %-" .. name_width .. "s %-12s %5s  %-10s %-10s %-10s %-10s  %s"
  local v, dv, theta, dtheta = table.unpack(roles)
  out(line, "index", "operator", "kind", "group", v, dv, theta, dtheta, "computes in")
  for _, row in ipairs(t.tensors) do
    local formats = {}
    for i, role in ipairs(roles) do formats[i] = row[role] ~= json.null and row[role].format or "-" end
    formats[#roles + 1] = compute_text(cfg, plan.graph:operator(row.index))
    out(line, row.index, row.name, row.kind, row.group, table.unpack(formats))
  end
end

local function text(cfg, plan, t, products)
  local lines = {}
  local function out(format, ...) lines[#lines + 1] = (format:format(...):gsub("%s+$", "")) end
  out("%s: %d parameters, batch %d, policy %s, formats %s", t.model, t.parameters, t.batch, tostring(plan.policy), cfg.formats)
  out("")
  groups_text(out, t)
  out("")
  tensors_text(out, cfg, plan, t)
  out("")
  if #t.order > 0 then out("demoted, in this order: %s", table.concat(t.order, " ")) end
  out("elements low: %.2f%% (ratio_lo %.4f)", 100 * t.ratio_lo, t.ratio_lo)
  out("bits: %.1f MB all high, %.1f MB now, ratio %.4f", t.bits.all_high / 8e6, t.bits.now / 8e6, t.bits.ratio)
  out("memory of a training step: %.1f MB emulated, %.1f MB packed", t.memory.emulated_bytes / 1e6, t.memory.packed_bytes / 1e6)
  local names = {}
  for _, row in ipairs(t.tensors) do names[row.index] = row.name end
  for _, line in ipairs(compute.products_text(products, names)) do lines[#lines + 1] = line end
  return table.concat(lines, "\n") .. "\n"
end

function M.run(args)
  local cfg = script.configure(args.script, args)
  local plan = script.plan(cfg, script.record(cfg))
  local products = predict_products(cfg, plan.assignment)
  local t = plan_table.create(cfg, plan, products)
  io.stdout:write(args.json and json.encode(t) .. "\n" or text(cfg, plan, t, products))
  return 0
end

return M
