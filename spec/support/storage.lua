--- Compares two ways of running the same training, bit for bit.
local core = require "mptl.core"
local net = require "support.network"

local M = {}

-- Trains some steps with promotion and a loss scale that falls after skipped steps; returns results and statistics as text.
local function train(graph, plan, steps, options, images, labels)
  local model = core.model(graph, { seed = 3 })
  local program, log, scale = core.program(model, plan.assignment, options), {}, 2 ^ 16
  for step = 1, steps do
    local update = { step = step, lr = 0.05, momentum = 0.9, weight_decay = 5e-4, loss_scale = scale }
    local result = program:step(images, labels, update)
    log[#log + 1] = ("%a %d %s"):format(result.loss, result.correct, result.applied)
    scale = result.applied and scale or scale / 2
    for _, s in ipairs(result.applied and program:stats() or {}) do
      log[#log + 1] = ("%d %s %d %d %d %a"):format(s.operator, s.role, s.elements, s.underflow, s.overflow, s.max_abs)
    end
    if plan.policy.threshold then
      for _, t in ipairs(program:promote(plan.policy.threshold)) do log[#log + 1] = "promoted " .. t.operator .. t.role end
    end
  end
  return table.concat(log, "\n"), model
end

--- A batch of n images of a shape, and labels below 5.
function M.images_of(n, input)
  local c, h, w = table.unpack(input)
  local images, numbers = core.tensor { n, h, w, c }, net.numbers(n * c * h * w, 5)
  for i = 1, #numbers do images:set(i, 2 * numbers[i]) end
  local labels = {}
  for i = 1, n do labels[i] = i % 5 end
  return images, labels
end

--- Trains twice, with the program options a and b, and compares everything.
function M.same(graph, make_plan, steps, batch, input, a, b)
  local images, labels = M.images_of(batch, input)
  local log_a, model_a = train(graph, make_plan(), steps, a, images, labels)
  local log_b, model_b = train(graph, make_plan(), steps, b, images, labels)
  assert(log_a == log_b, "results or statistics differ")
  for _, name in ipairs(model_a:names()) do
    assert(model_a:tensor(name):tostring() == model_b:tensor(name):tostring(), name .. " differs")
  end
end

return M
