--- The gradient error (method.md 5.8): how far the gradient under the assignment is from the
-- gradient in binary32, for the same model and the same batches; and the same of the update that
-- the optimizer would make of it.
--
-- All computations use the same batches: the first ones of the first epoch's order, not augmented.
-- They use the same random bits for dropout and stochastic rounding; dropout under the assignment
-- and in binary32 uses the same ones. A computation changes the model's gradients, which the next
-- step computes anew, and the running statistics of batch norms, which it restores.
local core = require "mptl.core"
local json = require "mptl.json"
local optim = require "mptl.optim"

local M = {}

local GradientError = {}
GradientError.__index = GradientError

-- The step in the key of the first batch's random bits. Other batches take the numbers below it,
-- which no training reaches.
local last_step = 0xffffffff

--- Prepares the gradient error of a trainer.
-- @param trainer a trainer with a training program and fp32_plan, the plan of binary32 for its
--   graph
-- @param batches number of batches, of the training's size; at most the whole batches of the
--   training set
-- @return an object with the method compute
function M.create(trainer, batches)
  local data = trainer.data
  return setmetatable({
    trainer = trainer, batches = batches,
    loader = core.loader(data.train, {
      batch = trainer.cfg.batch, shuffle = true, drop_last = true, seed = trainer.cfg.seed, mean = data.mean, std = data.std,
      device = trainer.cfg.device,
    }),
  }, GradientError)
end

-- Copies of tensors of the model: of(name) for each name.
local function copies(names, of)
  local list = {}
  for i, name in ipairs(names) do
    local tensor = of(name)
    list[i] = core.tensor(tensor:size()):copy(tensor)
  end
  return list
end

-- Names of the model's parameters, and of its buffers.
local function names_of(graph)
  local names, buffers = {}, {}
  for _, p in ipairs(graph:parameters()) do table.insert(p.buffer and buffers or names, p.name) end
  return names, buffers
end

-- Computes the gradients of the loader's batch under the assignment and in binary32, and adds the
-- differences of each parameter to sums. Returns whether both gradients were finite.
local function add_batch(self, names, sums, step, scale)
  local t = self.trainer
  t.program:forward(self.loader, step)
  if not t.program:backward(scale) then return false end
  local gradients = copies(names, function(name) return t.model:grad(name) end)
  self.reference:forward(self.loader, step)
  if not self.reference:backward(1) then return false end
  local settings = { optimizer = t.optimizer.name, update = t.optimizer:update(), updates = t.model:updates() }
  settings.update.loss_scale = scale
  local groups = t.optimizer:parameter_groups(t.graph)
  for i, name in ipairs(names) do
    local sum = sums[i]
    local arrays = { gradient = gradients[i], reference = t.model:grad(name), parameter = t.model:tensor(name) }
    for _, state in ipairs(optim.states(t.optimizer.name)) do arrays[state] = t.model:state(state, name) end
    settings.group = groups[name]
    local gradient, updated = core.compare_gradients(arrays, settings)
    for what, d in pairs { gradient = gradient, update = updated } do
      sum[what].size, sum[what].absolute = sum[what].size + d.size, sum[what].absolute + d.absolute
    end
  end
  return true
end

-- The means of sums over batches, by batch and element; empty when there was no batch.
local function means(sum, batches, numel)
  if batches == 0 then return {} end
  return {
    size = sum.size / batches / numel, absolute = sum.absolute / batches / numel,
    relative = sum.size > 0 and sum.absolute / sum.size or nil,
  }
end

-- The means over all parameters of the gradient and of the update, and the list by parameter.
local function all_means(names, numels, sums, batches)
  local all, total, parameters = { gradient = { size = 0.0, absolute = 0.0 }, update = { size = 0.0, absolute = 0.0 } }, 0, {}
  for i, name in ipairs(names) do
    total = total + numels[i]
    for what, sum in pairs(all) do
      sum.size, sum.absolute = sum.size + sums[i][what].size, sum.absolute + sums[i][what].absolute
    end
    parameters[i] = {
      name = name, numel = numels[i],
      gradient = means(sums[i].gradient, batches, numels[i]), update = means(sums[i].update, batches, numels[i]),
    }
  end
  return means(all.gradient, batches, total), means(all.update, batches, total), parameters
end

--- Computes the gradient error for the trainer's current model, formats and loss scale. Skips
-- batches whose gradient is not finite, as training with loss scaling does, and batches with images
-- that cannot be decoded.
-- @param to_the_end whether to ignore interrupts
-- @return {batches =, images = of all batches, skipped = number of batches, loss_scale =, gradient
--   = {size =, absolute =, relative =}, update = {...}, parameters = list of {name =, numel =,
--   gradient =, update =}}. size, absolute and relative are nil when every batch was skipped;
--   relative is nil where binary32's gradient is zero. nil when interrupted
function GradientError:compute(to_the_end)
  local t = self.trainer
  local names, buffers = names_of(t.graph)
  local function tensor(name) return t.model:tensor(name) end
  if not self.reference then
    self.reference = t:compile(t.fp32_plan.assignment, t.cfg.batch, true)
  end
  local kept, sums, numels, skipped, interrupted = copies(buffers, tensor), {}, {}, 0, false
  for i, name in ipairs(names) do
    sums[i] = { gradient = { size = 0.0, absolute = 0.0 }, update = { size = 0.0, absolute = 0.0 } }
    numels[i] = tensor(name):numel()
  end
  self.loader:start(0)
  for i = 1, self.batches do
    interrupted = not to_the_end and core.interrupted()
    if interrupted then break end
    local whole = self.loader:next() == t.cfg.batch -- false when it lacks an image that is damaged
    if not whole or not add_batch(self, names, sums, last_step - i + 1, t.scale.scale) then skipped = skipped + 1 end
  end
  for i, name in ipairs(buffers) do tensor(name):copy(kept[i]) end
  if interrupted then return nil end
  local result = {
    batches = self.batches, images = self.batches * t.cfg.batch, skipped = skipped, loss_scale = t.scale.scale,
  }
  result.gradient, result.update, result.parameters = all_means(names, numels, sums, self.batches - skipped)
  return result
end

local function as_json(m)
  return json.object({ "size", "absolute", "relative" }, {
    size = m.size or json.null, absolute = m.absolute or json.null, relative = m.relative or json.null,
  })
end

--- A line of gradient_error.jsonl, as a table for mptl.json.
-- @param epoch number of the epoch, from 1
-- @param result the result of compute
-- @return the table
function M.line(epoch, result)
  local parameters = {}
  for i, p in ipairs(result.parameters) do
    parameters[i] = json.object({ "name", "numel", "gradient", "update" }, {
      name = p.name, numel = p.numel, gradient = as_json(p.gradient), update = as_json(p.update),
    })
  end
  return json.object({ "epoch", "batches", "images", "skipped", "loss_scale", "gradient", "update", "parameters" }, {
    epoch = epoch, batches = result.batches, images = result.images, skipped = result.skipped, loss_scale = result.loss_scale,
    gradient = as_json(result.gradient), update = as_json(result.update), parameters = json.array(parameters),
  })
end

return M
