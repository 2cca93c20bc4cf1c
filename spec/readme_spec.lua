-- The Lua in README.md: a whole network first, then a policy, then a sweep.
local function read(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

describe("README.md", function()
  local scripts = {}

  setup(function()
    for code in read(os.getenv("MPTL_ROOT") .. "/README.md"):gmatch("```lua\n(.-)```") do
      local name = os.tmpname()
      local path = name .. ".lua"
      os.rename(name, path)
      local file = assert(io.open(path, "w"))
      file:write(code)
      file:close()
      table.insert(scripts, path)
    end
  end)

  teardown(function()
    for _, path in ipairs(scripts) do os.remove(path) end
  end)

  local function plan(script, options)
    local pipe = assert(io.popen(("'%s' plan '%s' %s 2>&1"):format(os.getenv("MPTL_BIN"), script, options)))
    local output = pipe:read("a")
    assert.is_true(pipe:close(), output)
    return output
  end

  it("shows a network that can be trained", function()
    assert.equal(3, #scripts)
    assert.matches("21450 parameters", plan(scripts[1], ""))
  end)

  it("shows a policy that makes a share of the elements low", function()
    assert.matches("ratio_lo 0%.6510", plan("resnet18_cifar.lua", ("--policy '%s'"):format(scripts[2])))
  end)

  it("shows a sweep of fourteen runs", function()
    local runs = require("mptl.sweep").load(scripts[3]).runs
    assert.equal(14, #runs)
    assert.equal("resnet18_cifar-demotion-ratio0.3", runs[7].name)
  end)
end)
