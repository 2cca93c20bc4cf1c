--- Runs the program mptl as a child process.
local lfs = require "lfs"

local M = {}

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function slurp(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

-- Folders made by M.file; they are removed when the specs' Lua ends.
local folders = setmetatable({}, {
  __gc = function(list)
    for _, dir in ipairs(list) do os.execute("rm -r " .. quote(dir)) end
  end,
})

--- Writes a file of this name into a fresh directory.
-- @return its path
function M.file(name, text)
  local dir = os.tmpname()
  os.remove(dir)
  assert(os.execute("mkdir " .. quote(dir)))
  folders[#folders + 1] = dir
  local path = dir .. "/" .. name
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
  return path
end

--- Waits for a file or folder that a background process makes, for half a minute at most.
-- @param path the file
function M.wait_for(path)
  for _ = 1, 600 do
    if lfs.attributes(path, "mode") then return end
    os.execute "sleep 0.05"
  end
  error(path .. " does not appear")
end

--- Runs mptl.
-- @param args list of arguments
-- @param options {stdin = text, env = table of variables, seconds = after which it is killed}
-- @return {out =, err =, status =}
function M.mptl(args, options)
  options = options or {}
  local input, output, errors = os.tmpname(), os.tmpname(), os.tmpname()
  local file = assert(io.open(input, "wb"))
  file:write(options.stdin or "")
  file:close()
  local words = options.seconds and { "timeout -s KILL", ("%d"):format(options.seconds), "env" } or { "env" }
  words[#words + 1] = "MPTL_PROGRAM=mptl" -- its name in commands that it prints
  for name, value in pairs(options.env or {}) do words[#words + 1] = quote(name .. "=" .. value) end
  words[#words + 1] = quote(os.getenv "MPTL_BIN")
  for _, arg in ipairs(args) do words[#words + 1] = quote(arg) end
  local _, _, status = os.execute(("%s < %s > %s 2> %s"):format(table.concat(words, " "), input, output, errors))
  local result = { out = slurp(output), err = slurp(errors), status = status }
  for _, path in ipairs { input, output, errors } do os.remove(path) end
  return result
end

return M
