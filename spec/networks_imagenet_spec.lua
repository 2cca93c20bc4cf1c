-- The ImageNet networks against torchvision's: a step in binary32, on small images (spec/fixtures/networks_imagenet.lua).
local configuration = require "mptl.configuration"
local core = require "mptl.core"
local net = require "support.network"
local script = require "mptl.script"

local fixtures = require "fixtures.networks_imagenet"

local n, size, labels = 4, 64, { 3, 0, 7, 3 }

-- Width, and how far a gradient may be from binary64's, relative to its norm: some of the many inputs of relus are so near 0 that
-- binary32 takes the other branch. PyTorch in binary32 is as far off.
local networks = { shufflenetv2 = { 0.5, 1e-3 }, resnet50 = { 0.125, 2e-2 } }

-- The parameters that spec/make_networks_fixture.py gives a network.
local function fill(graph, model)
  local seed = 0
  for _, p in ipairs(graph:parameters()) do
    if not p.buffer then
      seed = seed + 1
      local fan, scale = p.numel // p.dims[1], 0.25
      if #p.dims > 1 then scale = 2.0 ^ -(math.floor(math.log(fan, 2)) // 2) end
      local values, offset = net.numbers(p.numel, seed), #p.dims == 1 and p.name:match "%.weight$" and 1 or 0
      for i, v in ipairs(values) do values[i] = v * scale + offset end
      model:tensor(p.name):copy(core.tensor(p.dims, values))
    end
  end
end

-- A gradient's norm, and its sum along pseudo-random numbers.
local function digest(gradient, seed)
  local sum, squares = 0.0, 0.0
  local direction = net.numbers(#gradient, seed)
  for i, g in ipairs(gradient) do
    sum = sum + g * direction[i]
    squares = squares + g * g
  end
  return math.sqrt(squares), sum
end

describe("a step of torchvision's network", function()
  for name, row in pairs(networks) do
    local width, tolerance = row[1], row[2]
    it(name .. " gives its losses, gradients and running statistics, under its names", function()
      local fields, fixture = script.load(name .. "_imagenet"), fixtures[name]
      fields.input, fields.classes = { 3, size, size }, 10
      local graph = script.record(configuration.make(fields, { width = width }))
      local model, output = core.model(graph), #graph:operators() - 2
      local assignment = core.assignment(graph, n, net.fp32)
      local program = core.program(model, assignment, { keep_all = true })
      fill(graph, model)
      local images = net.images { dims = { n, 3, size, size }, data = net.numbers(n * 3 * size * size, 1000) }
      local result = program:forward(images, labels)
      assert.near(fixture.loss, result.loss / n, 5e-5)
      net.assert_close(fixture.output.data, program:read(output):totable(), 5e-5, "output")

      assert.is_true(program:backward(1))
      local seed = 0
      for _, p in ipairs(graph:parameters()) do
        if not p.buffer then
          seed = seed + 1
          local expected = assert(fixture.gradients[p.name], p.name)
          local norm, sum = digest(model:grad(p.name):totable(), 2000 + seed)
          local most = tolerance * expected[1] + 1e-5 -- a bias before a batch norm has the gradient 0
          assert.near(expected[1], norm, most, p.name)
          assert.near(expected[2], sum, most, p.name)
        end
      end
      local names = 0
      for _ in pairs(fixture.gradients) do names = names + 1 end
      assert.equal(names, seed)

      local eval = core.program(model, assignment, { train = false })
      eval:forward(images, labels)
      net.assert_close(fixture.eval_output.data, eval:read(output):totable(), 5e-5, "evaluated output")
    end)
  end
end)
