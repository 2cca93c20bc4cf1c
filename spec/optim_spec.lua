-- AdamW; parameter groups and clipping with every optimizer: which parameters a group has, and what an update does.
local core = require "mptl.core"
local net = require "support.network"
local optim = require "mptl.optim"
local runs = require "support.runs"
local safetensors = require "mptl.safetensors"

-- A linear layer, then a batch norm, with given gradients.
local function model_of(optimizer)
  local g = core.graph()
  local x = g:add("conv2d", "conv", { g:input { 2, 1, 1 } }, { out = 3 })
  x = g:add("linear", "fc", { g:flatten(g:add("batchnorm2d", "bn", { x })) }, { out = 2 })
  g:add("nll_loss", "loss", { x })
  local model = core.model(g, {
    seed = 1, optimizer = optimizer.name, parameter_groups = optimizer:parameter_groups(g),
  })
  core.program(model, core.assignment(g, 2, net.fp32), {})
  for i, p in ipairs(g:parameters()) do
    if not p.buffer then model:grad(p.name):copy(core.tensor(p.dims, net.numbers(p.numel, i))) end
  end
  return model, g
end

-- The trained parameters' values, by name.
local function values(model, g, of)
  local list = {}
  for _, p in ipairs(g:parameters()) do
    if not p.buffer then list[p.name] = of(model, p.name):totable() end
  end
  return list
end

local function tensor(model, name) return model:tensor(name) end
local function grad(model, name) return model:grad(name) end

describe("optim.adamw", function()
  -- The distance of two binary32 numbers in units in the last place.
  local function ulps(a, b)
    local function order(x)
      local bits = string.unpack("<i4", string.pack("<f", x))
      return bits < 0 and -(bits & 0x7fffffff) or bits
    end
    return math.abs(order(a) - order(b))
  end

  it("computes what torch.optim.AdamW computes from recorded gradients", function()
    local fixture = require "fixtures.adamw"
    local n, steps = 12, 100
    local g = core.graph()
    g:add("nll_loss", "loss", { g:add("linear", "fc", { g:input { n } }, { out = 1, bias = false }) })
    local model = core.model(g, { optimizer = "adamw" })
    core.program(model, core.assignment(g, 1, net.fp32), {})
    model:tensor("fc.weight"):copy(core.tensor({ 1, n }, fixture.p.data))
    local update = optim.adamw(fixture.optimizer):update()
    for step = 1, steps do
      local gradient = table.move(fixture.gradients.data, (step - 1) * n + 1, step * n, 1, {})
      model:grad("fc.weight"):copy(core.tensor({ 1, n }, gradient))
      model:update(update)
    end
    assert.equal(steps, model:updates())
    for i, want in ipairs(fixture.p_after.data) do
      local got = model:tensor("fc.weight"):get(i)
      assert.is_true(ulps(want, got) <= 4, ("p %d is %.9g, PyTorch's %.9g"):format(i, got, want))
    end
    -- a moment may be the small difference of larger numbers
    for _, state in ipairs { "exp_avg", "exp_avg_sq" } do
      net.assert_close(fixture[state .. "_after"].data, model:state(state, "fc.weight"):totable(), 2 ^ -22, state)
    end
  end)

  it("has PyTorch's settings, and says which are wrong", function()
    local o = optim.adamw()
    assert.same({ 1e-3, 0.9, 0.999, 1e-8, 0.01 }, { o.lr, o.beta1, o.beta2, o.eps, o.weight_decay })
    assert.error_matches(function() optim.adamw { beta2 = 1 } end,
      "^optim.adamw: beta2 = 1, must be a number of at least 0 and below 1$")
    assert.error_matches(function() optim.adamw { momentum = 0.9 } end, "unknown option momentum")
  end)

  it("trains: checkpoints hold both moments, --resume continues bit for bit, both storages are equal", function()
    local dir = runs.directory()
    local optimizer = 'optimizer = mptl.optim.adamw { lr = 0.01, clip_norm = 1,'
      .. ' groups = { { params = "vectors", weight_decay = 0 } } }'
    runs.spill(dir .. "/net.lua", (runs.script:gsub("dataset =", optimizer .. ", dataset =")))
    assert.equal(0, (runs.mptl(dir, "train net.lua --quiet --out a --tensors-every 3 --gradient-error 1")))
    assert.equal(0, (runs.mptl(dir, "train net.lua --quiet --out e --storage emulated")))
    assert.equal(130, (runs.mptl(dir, "train net.lua --quiet --out b", "KILL=4")))
    assert.equal(0, (runs.mptl(dir, "train net.lua --quiet --out b --resume")))
    local names = {}
    for _, name in ipairs(safetensors.open(dir .. "/a/last.safetensors").names) do names[name] = true end
    assert.is_true(names["optimizer.exp_avg.0.weight"] and names["optimizer.exp_avg_sq.4.bias"])
    assert.is_true(runs.same_files(dir .. "/a/last.safetensors", dir .. "/b/last.safetensors"))
    assert.is_true(runs.same_files(dir .. "/a/last.safetensors", dir .. "/e/last.safetensors"))
    local code, _, err = runs.mptl(dir, "eval net.lua a/last.safetensors --quiet")
    assert.equal("", err)
    assert.equal(0, code)
    runs.remove(dir)
  end)
end)

describe("parameter groups", function()
  local function groups_of(groups)
    local _, g = model_of(optim.sgd { groups = groups })
    return optim.sgd({ groups = groups }):parameter_groups(g)
  end

  it("are found by dimensions, names or a function, the first that has a parameter", function()
    local vectors = { ["conv.bias"] = 1, ["bn.weight"] = 1, ["bn.bias"] = 1, ["fc.bias"] = 1 }
    assert.same(vectors, groups_of { { params = "vectors", weight_decay = 0 } })
    assert.same({ ["bn.weight"] = 1, ["bn.bias"] = 1, ["conv.bias"] = 2, ["fc.bias"] = 2 },
      groups_of { { params = { "^bn%." }, lr = 1 }, { params = { "bias$" }, weight_decay = 0 } })
    local function wide(name, dims) return name ~= "fc.weight" and #dims > 1 end
    assert.same({ ["conv.weight"] = 1 }, groups_of { { params = wide } })
  end)

  it("have their own settings, and a schedule multiplies their lr by the same factor", function()
    local o = optim.sgd { lr = 0.1, weight_decay = 0.5, groups = { { params = "vectors", lr = 0.02 }, { params = { "x" } } } }
    assert.same({ lr = 0.1, momentum = 0.9, weight_decay = 0.5, groups = { { lr = 0.02 }, {} } }, o:update())
    local later = o:update(0.05)
    assert.same({ 0.05, 0.01 }, { later.lr, later.groups[1].lr })
  end)

  it("are updated with their settings, on every device", function()
    local o = optim.sgd { lr = 0.5, momentum = 0, weight_decay = 0.25, groups = { { params = "vectors", weight_decay = 0 } } }
    local model, g = model_of(o)
    local p, d = values(model, g, tensor), values(model, g, grad)
    model:update(o:update())
    local after = values(model, g, tensor)
    for name, before in pairs(p) do
      local decay = (name == "conv.weight" or name == "fc.weight") and 0.25 or 0
      for i, x in ipairs(before) do
        assert.near(x - 0.5 * (d[name][i] + decay * x), after[name][i], 1e-6, name)
      end
    end
  end)

  it("are refused when a setting or a choice of parameters is wrong", function()
    local function refused(message, groups)
      assert.error_matches(function() optim.sgd { groups = groups } end, message, 1, true)
    end
    refused("optim.sgd: groups = 3, must be a list of {params = ..., setting = value, ...}", 3)
    refused('optim.sgd: groups[1]: params = nil, must be "vectors", a list of Lua patterns of names, or a function(name, dims)',
      { { lr = 1 } })
    refused('optim.sgd: groups[1]: params = norms, must be "vectors"', { { params = "norms" } })
    refused("optim.sgd: groups[2]: momentum = 1, must be a number of at least 0 and below 1",
      { { params = "vectors" }, { params = "vectors", momentum = 1 } })
    refused("unknown option decay", { { params = "vectors", decay = 0 } })
    local many = {}
    for i = 1, 8 do many[i] = { params = { "x" .. i } } end
    local o = optim.sgd { groups = many }
    assert.error_matches(function() model_of(o):update(o:update()) end, "groups: 8, at most 7")
  end)
end)

describe("clipping", function()
  -- The norm of all gradients together.
  local function norm_of(d, scale)
    local sum = 0
    for _, list in pairs(d) do
      for _, x in ipairs(list) do sum = sum + (x / scale) ^ 2 end
    end
    return math.sqrt(sum)
  end

  for _, scale in ipairs { 1, 1024 } do
    it(("scales gradients down to the norm, with a loss scale of %d"):format(scale), function()
      local o = optim.sgd { lr = 1, momentum = 0, weight_decay = 0, clip_norm = 0.125 / scale }
      local model, g = model_of(o)
      local p, d = values(model, g, tensor), values(model, g, grad)
      local update = o:update()
      update.loss_scale = scale
      model:update(update)
      local norm, after = norm_of(d, scale), values(model, g, tensor)
      assert.is_true(norm > o.clip_norm)
      assert.near(norm, model:gradient_norm(), 1e-9 * norm)
      for name, before in pairs(p) do
        for i, x in ipairs(before) do
          assert.near(x - d[name][i] / scale * o.clip_norm / (norm + 1e-6), after[name][i], 1e-6 / scale + 1e-7, name)
        end
      end
    end)
  end

  it("does not change gradients of a smaller norm", function()
    local function updated(clip_norm)
      local o = optim.sgd { lr = 1, clip_norm = clip_norm }
      local model, g = model_of(o)
      model:update(o:update())
      return values(model, g, tensor)
    end
    assert.same(updated(nil), updated(100))
    assert.same(updated(nil), updated(0))
    assert.error_matches(function() optim.sgd { clip_norm = -1 } end,
      "^optim.sgd: clip_norm = %-1, must be a number of at least 0$")
  end)
end)
