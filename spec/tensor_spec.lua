local core = require "mptl.core"

describe("tensor", function()
  it("holds values in row-major order", function()
    local t = core.tensor({ 2, 2 }, { 1, 2, 3, 4 })
    assert.same({ 2, 2 }, t:size())
    assert.same({ 1, 2, 3, 4 }, t:totable())
    t:set(4, 0.5)
    assert.equal(0.5, t:get(4))
  end)

  it("is unchanged by writing and reading raw bytes", function()
    local t = core.tensor({ 3 }, { 1, -0.0, 2 ^ -149 })
    assert.same(t:totable(), core.tensor({ 3 }):fromstring(t:tostring()):totable())
  end)

  it("names the element that is out of range", function()
    assert.has_error(function() core.tensor({ 2 }):get(3) end, "tensor: element 3, accepted are 1 to 2")
  end)
end)
