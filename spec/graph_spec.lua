-- The engine's graph: what it finds by name, and which values it says slices share out.
local core = require "mptl.core"

-- A graph of an input of so many channels, and its value.
local function begin(channels)
  local g = core.graph()
  return g, g:input { channels, 2, 2 }
end

-- Whether the graph says that slices share out the input, when the slices {first, count} read it in this order. more: function
-- (g, x) that adds other readers.
local function shared(channels, slices, more)
  local g, x = begin(channels)
  for i, part in ipairs(slices) do g:add("slice", "slice" .. i, { x }, { first = part[1], count = part[2] }) end
  if more then more(g, x) end
  return g:operators()[1].shared_out
end

describe("a graph", function()
  it("has each name once, however many it has", function()
    local g, x = begin(3)
    for i = 1, 1000 do x = g:add("relu", "relu" .. i, { x }) end
    for i = 1, 1000 do
      local ok, message = pcall(g.add, g, "relu", "relu" .. i, { x })
      assert.is_false(ok)
      assert.equal(("relu%d: the graph has an operator of that name already"):format(i), message)
    end
    assert.equal(1001, #g:operators())
    g:add("relu", "relu", { x })
    g:add("relu", "relu10000", { x })
    assert.equal(1003, #g:operators())
  end)

  it("keeps the name of an operator that it refused free", function()
    local g, x = begin(3)
    assert.is_false((pcall(g.add, g, "conv2d", "c", { x }, { out = 4, kernel = 9 }))) -- does not fit
    g:add("conv2d", "c", { x }, { out = 4 })
    g:set_init("c.bias", "constant", 1)
    assert.equal(2, #g:parameters())
  end)

  it("finds each parameter by its name, and none by another", function()
    local g, x = begin(3)
    for i = 1, 100 do x = g:add("conv2d", "a." .. i, { x }, { out = 3 }) end
    x = g:add("mean", "mean", { x })
    g:add("nll_loss", "loss", { x })
    for i = 1, 100 do
      g:set_init(("a.%d.weight"):format(i), "constant", i)
      g:set_init(("a.%d.bias"):format(i), "constant", -i)
    end
    local model = core.model(g, {})
    for i = 1, 100 do
      assert.equal(i, model:tensor(("a.%d.weight"):format(i)):get(1))
      assert.equal(-i, model:tensor(("a.%d.bias"):format(i)):get(1))
    end
    for _, name in ipairs { "", ".", "weight", ".weight", "a", "a.1", "a.1.", "a.1.weigh", "a.1.weights", "a.101.weight",
      "mean.weight" } do
      local ok, message = pcall(g.set_init, g, name, "constant", 0)
      assert.is_false(ok)
      assert.equal(("parameter %s: the graph has no such parameter"):format(name), message)
    end
  end)

  it("knows whether it has a loss", function()
    local g, x = begin(3)
    x = g:flatten(x)
    assert.is_false(g:has_loss())
    g:add("nll_loss", "loss", { x })
    assert.is_true(g:has_loss())
  end)

  describe("shares a value out among slices", function()
    it("that have each channel once, in whatever order they are made", function()
      assert.is_true(shared(6, { { 0, 6 } }))
      assert.is_true(shared(6, { { 0, 1 }, { 1, 3 }, { 4, 2 } }))
      assert.is_true(shared(6, { { 4, 2 }, { 1, 3 }, { 0, 1 } }))
      assert.is_true(shared(6, { { 1, 3 }, { 0, 1 }, { 4, 2 } }))
      assert.is_true(shared(6, { { 4, 1 }, { 2, 1 }, { 5, 1 }, { 0, 1 }, { 3, 1 }, { 1, 1 } }))
    end)

    it("unless a channel is in none or in several", function()
      assert.is_false(shared(6, {}))
      assert.is_false(shared(6, { { 0, 5 } }))
      assert.is_false(shared(6, { { 1, 5 } }))
      assert.is_false(shared(6, { { 0, 2 }, { 3, 3 } }))
      assert.is_false(shared(6, { { 0, 3 }, { 2, 4 } }))
      assert.is_false(shared(6, { { 0, 3 }, { 3, 3 }, { 3, 3 } }))
      assert.is_false(shared(6, { { 0, 3 }, { 0, 3 }, { 3, 3 } }))
      assert.is_false(shared(6, { { 0, 3 }, { 0, 2 }, { 3, 3 } }))
      assert.is_false(shared(6, { { 0, 6 }, { 0, 6 } }))
      assert.is_false(shared(6, { { 0, 3 }, { 3, 3 }, { 1, 1 } }))
    end)

    it("unless another operator reads it, or a view of it", function()
      local halves = { { 0, 3 }, { 3, 3 } }
      assert.is_true(shared(6, halves, function(g, x) g:flatten(x) end))
      assert.is_false(shared(6, halves, function(g, x) g:add("relu", "relu", { x }) end))
      assert.is_false(shared(6, halves, function(g, x) g:add("relu", "relu", { g:flatten(x) }) end))
    end)
  end)
end)
