local core = require "mptl.core"
local files = require "data_files"
local lfs = require "lfs"

local function slurp(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "a"
  f:close()
  return text
end

--- Runs Lua text in another process; returns its exit status ("exit" or "signal"), code and output.
local function child(prelude, text)
  local script, out = os.tmpname(), os.tmpname()
  local f = assert(io.open(script, "w"))
  f:write(text)
  f:close()
  local lua = arg[-1] and arg[-1]:match "lua" and arg[-1] or "lua5.4"
  local _, how, code = os.execute(("%s exec %s %s >%s 2>&1"):format(prelude, lua, script, out))
  local said = slurp(out)
  os.remove(script)
  os.remove(out)
  return how, code, said
end

describe("system", function()
  local dir, path

  before_each(function()
    dir = files.directory()
    path = dir .. "/file"
  end)

  after_each(function() files.remove(dir) end)

  -- What is in the directory.
  local function names()
    local list = {}
    for name in lfs.dir(dir) do
      if name ~= "." and name ~= ".." then list[#list + 1] = name end
    end
    table.sort(list)
    return list
  end

  describe("an appender", function()
    it("appends to a file, which it creates", function()
      for _, text in ipairs { "one\n", "two\n" } do
        local appender = core.appender(path)
        appender:append(text)
        appender:append ""
        appender:append(text)
        appender:sync()
        appender:close()
      end
      assert.equal("one\none\ntwo\ntwo\n", slurp(path))
    end)

    it("does not buffer", function()
      local appender = core.appender(path)
      appender:append "x"
      assert.equal("x", slurp(path))
    end)

    it("names the file and the reason", function()
      assert.has_error(function() core.appender(dir .. "/none/file") end,
        "cannot write " .. dir .. "/none/file: No such file or directory")
      local full = core.appender "/dev/full"
      assert.has_error(function() full:append "x" end, "cannot write /dev/full: No space left on device")
      full:close()
      assert.has_error(function() full:append "x" end, "appender: already closed")
    end)

    it("leaves no part of text that could not be appended", function()
      local how, code, said = child("ulimit -f 1;", ([[
        local core = require "mptl.core"
        core.catch_interrupt() -- then exceeding the limit is an error
        local appender = core.appender %q
        appender:append(("x"):rep(300))
        local ok, message = pcall(appender.append, appender, ("y"):rep(1000))
        print(ok, message)
        appender:append "z"
      ]]):format(path))
      assert.same({ "exit", 0, ("false\tcannot write %s: File too large\n"):format(path) }, { how, code, said })
      assert.equal(("x"):rep(300) .. "z", slurp(path))
    end)
  end)

  describe("rename", function()
    it("renames files and folders, and names the file after a failure", function()
      core.write_file(path, { "x" })
      core.rename(path, dir .. "/other")
      assert.equal("x", slurp(dir .. "/other"))
      lfs.mkdir(dir .. "/a")
      core.rename(dir .. "/a", dir .. "/b")
      assert.equal("directory", lfs.attributes(dir .. "/b", "mode"))
      assert.has_error(function() core.rename(path, dir .. "/c") end, "cannot write " .. dir .. "/c: No such file or directory")
    end)
  end)

  describe("sync_folder", function()
    it("names a folder that does not exist", function()
      core.sync_folder(dir)
      assert.has_error(function() core.sync_folder(dir .. "/none") end,
        "cannot write " .. dir .. "/none: No such file or directory")
    end)
  end)

  describe("write_file", function()
    it("writes strings and tensors one after the other", function()
      core.write_file(path, { "ab", core.tensor({ 2 }, { 1, -2 }), "", "c" })
      assert.equal("ab" .. string.pack("<ff", 1, -2) .. "c", slurp(path))
      assert.same({ "file" }, names())
    end)

    it("writes an empty file", function()
      core.write_file(path, {})
      assert.equal("", slurp(path))
    end)

    it("replaces an existing file", function()
      core.write_file(path, { "a longer text" })
      core.write_file(path, { "new" })
      assert.equal("new", slurp(path))
    end)

    it("names the file and the reason", function()
      assert.has_error(function() core.write_file(dir .. "/none/file", { "x" }) end,
        "cannot write " .. dir .. "/none/file: No such file or directory")
      assert.has_error(function() core.write_file(dir, { "x" }) end, "cannot write " .. dir .. ": Is a directory")
      assert.same({}, names())
    end)

    it("follows no link, and opens no existing file", function()
      files.write(dir .. "/other", "precious")
      assert(lfs.link(dir .. "/other", path .. ".tmp", true))
      assert(lfs.link(dir .. "/other", path, true))
      core.write_file(path, { "new" })
      assert.equal("precious", slurp(dir .. "/other"))
      assert.equal("new", slurp(path))
      assert.equal("file", lfs.symlinkattributes(path, "mode"))
    end)

    it("lets several processes write a file at the same time", function()
      local writer = ([[
        local core = require "mptl.core"
        for i = 1, 100 do core.write_file(%q, { ("x"):rep(20000) }) end
      ]]):format(path)
      local script = os.tmpname()
      files.write(script, writer)
      local lua = arg[-1] and arg[-1]:match "lua" and arg[-1] or "lua5.4"
      local both = ("%s %s & %s %s; code=$?; wait $! || code=1; exit $code"):format(lua, script, lua, script)
      assert.same({ true, "exit", 0 }, { os.execute(both) })
      os.remove(script)
      assert.same({ "file" }, names())
      assert.equal(20000, #slurp(path))
    end)

    it("refuses chunks of other kinds", function()
      assert.error_matches(function() core.write_file(path, { "a", 12 }) end, "chunk 2 is a number")
      assert.is_nil(lfs.attributes(path))
    end)

    it("keeps the old file when the disk has no room for the new one", function()
      core.write_file(path, { "old" })
      -- 8 blocks of 1024 bytes (dash: 512) are less than the 100000 to be written
      local how, code, said = child("ulimit -f 8;", ([[
        local core = require "mptl.core"
        core.catch_interrupt()
        print(pcall(core.write_file, %q, { ("x"):rep(100000) }))
      ]]):format(path))
      assert.same({ "exit", 0 }, { how, code })
      assert.equal("false\tcannot write " .. path .. ": File too large\n", said)
      assert.equal("old", slurp(path))
      assert.same({ "file" }, names())
    end)
  end)

  describe("read_tensor", function()
    it("reads at a byte offset", function()
      core.write_file(path, { "abc", string.pack("<fff", 1, 2, 3) })
      local file <close> = assert(core.open(path))
      assert.same({ 2, 3 }, core.read_tensor(file, path, 7, core.tensor { 2 }):totable())
    end)

    it("says where a short file ends", function()
      core.write_file(path, { "12345" })
      local file <close> = assert(core.open(path))
      assert.has_error(function() core.read_tensor(file, path, 2, core.tensor { 2 }) end,
        path .. ": ends at byte 5, 10 are needed")
    end)

    it("needs an open file", function()
      core.write_file(path, { "12345" })
      local file = assert(core.open(path))
      file:close()
      assert.error_matches(function() core.read_tensor(file, path, 0, core.tensor { 1 }) end, "the file is closed")
      assert.error_matches(function() core.read_tensor(path, path, 0, core.tensor { 1 }) end, "FILE")
    end)
  end)

  describe("interrupts", function()
    -- io.popen's sh has the child's pid as its parent when it is exec'ed from Lua: kill $PPID signals the Lua process
    it("set a flag and do nothing else", function()
      local how, code, said = child("", [[
        local core = require "mptl.core"
        core.catch_interrupt()
        io.write(tostring(core.interrupted()), " ")
        io.popen("kill -INT $PPID"):close()
        io.write(tostring(core.interrupted()))
      ]])
      assert.same({ "exit", 0, "false true" }, { how, code, said })
    end)

    -- The status of a process that catches interrupts and gets these signals; before: shell text.
    local function after(signals, before)
      local _, code = child(before or "", ([[
        local core = require "mptl.core"
        core.catch_interrupt()
        for signal in ("%s"):gmatch "%%u+" do io.popen("kill -" .. signal .. " $PPID"):close() end
        os.exit(core.interrupted() and 7 or 0)
      ]]):format(signals))
      return code % 128
    end

    it("end the process the second time, where each signal is counted separately", function()
      assert.is_true(after "INT INT" <= 2) -- 1 in the program lua, where SIGINT was an error before
      assert.equal(15, after "TERM TERM")
      assert.equal(7, after "TERM INT")
    end)

    it("include closing a terminal, however often the signal comes, but not under nohup", function()
      assert.equal(7, after "HUP")
      assert.equal(7, after "HUP HUP TERM HUP")
      assert.equal(0, after("HUP HUP", "trap '' HUP;"))
    end)

    it("do what they did before, after catching ends", function()
      local function released(signal, before)
        local _, code = child(before or "", ([[
          local core = require "mptl.core"
          core.catch_interrupt()
          core.catch_interrupt(false)
          io.popen("kill -%s $PPID"):close()
          os.exit(7)
        ]]):format(signal))
        return code % 128
      end
      assert.equal(1, released "HUP")
      assert.equal(15, released "TERM")
      assert.equal(7, released("HUP", "trap '' HUP;"))
    end)
  end)

  it("has a clock that never goes back", function()
    local a = core.time()
    local b = core.time()
    assert.is_true(b >= a and b - a < 60)
  end)

  it("distinguishes a terminal from a file", function()
    local _, _, said = child("", [[
      local core = require "mptl.core"
      io.write(tostring(core.isatty(1)), " ", core.terminal_width(1))
    ]])
    assert.equal("false 80", said)
  end)

  it("describes the processor", function()
    local cpu = core.cpu()
    assert.is_true(#cpu.model > 0)
    assert.equal("table", type(cpu.features))
  end)
end)
