-- The library does not depend on the commands, which use it.
local lfs = require "lfs"

local root = os.getenv "MPTL_ROOT" .. "/lua/mptl"

-- Calls take(path below lua/mptl, text) for every Lua file except those of the command line.
local function each_file(dir, take)
  for name in lfs.dir(root .. dir) do
    local path = dir .. "/" .. name
    local mode = name:sub(1, 1) ~= "." and lfs.attributes(root .. path, "mode")
    if mode == "directory" and path ~= "/cmd" then
      each_file(path, take)
    elseif mode == "file" and name:find "%.lua$" and path ~= "/cli.lua" then
      local file <close> = assert(io.open(root .. path))
      take(path, file:read "a")
    end
  end
end

-- Names of the modules of the command line that a text requires.
local function commands_in(text)
  local list = {}
  for name in text:gmatch [==[require%s*%(?%s*["'%[]%[?(mptl%.c[ml][di][%w_.]*)]==] do list[#list + 1] = name end
  return list
end

describe("the library", function()
  it("requires no command", function()
    local found, count = {}, 0
    each_file("", function(path, text)
      count = count + 1
      for _, name in ipairs(commands_in(text)) do found[#found + 1] = path .. " requires " .. name end
    end)
    assert.same({}, found)
    assert.is_true(count > 50)
  end)

  it("is read for all ways to write that", function()
    local ways = { [[local a = require "mptl.cmd.plan"]], [[require 'mptl.cmd.plan']], [[require("mptl.cmd.plan")]],
      "require[[mptl.cmd.plan]]", [[pcall(require ( 'mptl.cmd.plan' ))]] }
    for _, text in ipairs(ways) do assert.same({ "mptl.cmd.plan" }, commands_in(text)) end
    assert.same({ "mptl.cli" }, commands_in [[local cli = require "mptl.cli"]])
    assert.same({}, commands_in [[local core = require "mptl.core"]])
  end)
end)
