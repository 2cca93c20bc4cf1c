--- The gradient-error measure (method.md 5): how far the gradient under the assignment, and the update that the optimizer would
-- make of it, are from those in binary32, from the same state and on the same batches at every time.
--
-- The batches are the first ones of the order that the seed gives the first epoch, as they are, not augmented. Dropout and
-- stochastic rounding have the same random bits at every time, and dropout the same under the assignment and in binary32. What a
-- measurement changes in the model are its gradients, which the next step computes anew, and the running statistics of batch
-- norms, which are put back.
local core = require "mptl.core"
local json = require "mptl.json"
local optim = require "mptl.optim"

local M = {}

local GradientError = {}
GradientError.__index = GradientError

local last_step = 0xffffffff -- number of the first batch's random bits; the others' go down from it, where no training comes to

--- Prepares the measure for a trainer.
-- @param trainer with a training program and fp32_plan, the plan of binary32 for the same graph
-- @param batches how many of the training's size to measure on, at most the whole ones of the training set
-- @return the measure
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

-- Copies of the model's tensors of these names.
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

-- The gradients of the loader's batch, under the assignment and then in binary32, added up as differences by parameter in sums;
-- returns whether both were finite.
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

-- What is told of sums over batches: means by batch and element; empty when there was none.
local function tell(sum, batches, numel)
  if batches == 0 then return {} end
  return {
    size = sum.size / batches / numel, absolute = sum.absolute / batches / numel,
    relative = sum.size > 0 and sum.absolute / sum.size or nil,
  }
end

local function tell_all(names, numels, sums, batches)
  local all, total, parameters = { gradient = { size = 0.0, absolute = 0.0 }, update = { size = 0.0, absolute = 0.0 } }, 0, {}
  for i, name in ipairs(names) do
    total = total + numels[i]
    for what, sum in pairs(all) do
      sum.size, sum.absolute = sum.size + sums[i][what].size, sum.absolute + sums[i][what].absolute
    end
    parameters[i] = {
      name = name, numel = numels[i],
      gradient = tell(sums[i].gradient, batches, numels[i]), update = tell(sums[i].update, batches, numels[i]),
    }
  end
  return tell(all.gradient, batches, total), tell(all.update, batches, total), parameters
end

--- Measures in the trainer's state of now. Batches whose gradient is not finite, which a training with loss scaling would skip,
-- are left out, and those with images that cannot be decoded.
-- @param to_the_end do not stop when interrupted
-- @return {batches =, images = in all of them, skipped = batches left out, loss_scale =, gradient = {size =, absolute =,
--   relative =}, update = {...}, parameters = list of {name =, numel =, gradient =, update =}}; measures are nil when every batch
--   was left out, relative ones where binary32's is zero. nil when interrupted
function GradientError:measure(to_the_end)
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
    local whole = self.loader:next() == t.cfg.batch -- not so when a bad image was left out of it
    if not whole or not add_batch(self, names, sums, last_step - i + 1, t.scale.scale) then skipped = skipped + 1 end
  end
  for i, name in ipairs(buffers) do tensor(name):copy(kept[i]) end
  if interrupted then return nil end
  local result = {
    batches = self.batches, images = self.batches * t.cfg.batch, skipped = skipped, loss_scale = t.scale.scale,
  }
  result.gradient, result.update, result.parameters = tell_all(names, numels, sums, self.batches - skipped)
  return result
end

local function measures(m)
  return json.object({ "size", "absolute", "relative" }, {
    size = m.size or json.null, absolute = m.absolute or json.null, relative = m.relative or json.null,
  })
end

--- A line of gradient_error.jsonl, as a table for mptl.json.
-- @param epoch from 1
-- @param result what measure returned
-- @return the table
function M.record(epoch, result)
  local parameters = {}
  for i, p in ipairs(result.parameters) do
    parameters[i] = json.object({ "name", "numel", "gradient", "update" }, {
      name = p.name, numel = p.numel, gradient = measures(p.gradient), update = measures(p.update),
    })
  end
  return json.object({ "epoch", "batches", "images", "skipped", "loss_scale", "gradient", "update", "parameters" }, {
    epoch = epoch, batches = result.batches, images = result.images, skipped = result.skipped, loss_scale = result.loss_scale,
    gradient = measures(result.gradient), update = measures(result.update), parameters = json.array(parameters),
  })
end

return M
