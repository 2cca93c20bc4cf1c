local json = require "mptl.json"

describe("json.encode", function()
  it("writes fields in the given order, or sorted: the same value gives the same text", function()
    local inner = {}
    for _, name in ipairs { "zeta", "alpha", "mu", "kappa", "beta", "omega" } do inner[name] = #name end
    assert.equal('{"second":1,"first":{"alpha":5,"beta":4,"kappa":5,"mu":2,"omega":5,"zeta":4}}',
      json.encode(json.object({ "second", "first" }, { first = inner, second = 1 })))
  end)

  it("writes null for values that JSON does not have, and empty lists", function()
    assert.equal("[null,null,[]]", json.encode { 1 / 0, 0 / 0, json.array {} })
  end)
end)

describe("json.decode", function()
  it("says where a mistake is", function()
    assert.same({ a = { 1, 2 } }, json.decode '{"a":[1,2]}')
    local value, message = json.decode '{"a":[1,}'
    assert.is_nil(value)
    assert.matches("at byte %d+", message)
  end)
end)
