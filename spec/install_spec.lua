-- What `cmake --install` installs works without the source tree and the build.
local build, lua = os.getenv("MPTL_BUILD"), os.getenv("MPTL_LUA")

-- Runs a command; returns whether it succeeded, and all that it printed.
local function sh(command, ...)
  local pipe = assert(io.popen("{ " .. command:format(...) .. "; } 2>&1"))
  local output = pipe:read("a")
  return pipe:close() == true, output
end

describe("an installed mptl", function()
  local prefix

  setup(function()
    local _, dir = assert(sh("mktemp -d"))
    prefix = dir:gsub("\n$", "")
    assert(sh("cmake --install '%s' --prefix '%s'", build, prefix))
  end)

  teardown(function() sh("rm -rf '%s'", prefix) end)

  it("has the program, which finds its Lua files and the model scripts", function()
    local ok, output = sh("cd / && env -u LUA_PATH -u LUA_CPATH '%s/bin/mptl' plan resnet18_cifar.lua --json", prefix)
    assert.is_true(ok, output)
    assert.matches('"parameters":%s*11173962', output)
  end)

  it("has the module, where a Lua of that prefix looks for it", function()
    local script = prefix .. "/script.lua"
    local file = assert(io.open(script, "w"))
    file:write('print(require("mptl").tensor({ 2 }, { 1, 2 }):get(2), package.searchpath("mptl", package.path))\n')
    file:close()
    local ok, output = sh("cd / && LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua' "
      .. "LUA_CPATH='%s/lib/lua/5.4/?.so' '%s' '%s'", prefix, prefix, prefix, lua, script)
    assert.is_true(ok, output)
    assert.equal("2.0\t" .. prefix .. "/share/lua/5.4/mptl/init.lua\n", output)
  end)

  it("has every header that its headers include", function()
    local ok, output = sh("cd '%s/include/mptl' && for h in mptl/*.h; do "
      .. "echo \"#include <$h>\" | cc -fsyntax-only -Wall -Werror -I. -x c - || exit 1; done", prefix)
    assert.is_true(ok, output)
  end)
end)
