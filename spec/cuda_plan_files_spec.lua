-- cuDNN's plans in files, without a GPU: how a process uses the files of another process.
local convolutions = require "support.convolutions"
local core = require "mptl.core"
local lfs = require "lfs"
local runs = require "support.runs"

-- A convolution whose plans need no compiler, and workspace in two of three passes.
local shape = { 2, 8, 8, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 }

--- Plans of all passes, with variables of the environment; options of convolutions.plans.
local function plans(environment, options)
  options = options or {}
  options.environment = environment
  return convolutions.plans(options.device or "h100", "f32", { shape }, options)
end

local function kept_in(dir) return ("MPTL_CUDA_PLANS='%s'"):format(dir) end

--- Names of all files below a folder, sorted.
local function files(dir)
  local found = {}
  local pipe <close> = assert(io.popen("find '" .. dir .. "' -type f | sort"))
  for path in pipe:lines() do found[#found + 1] = path end
  return found
end

--- The parts of a file: what the plan depends on, the engine's name, cuDNN's text.
local function parts(path)
  return runs.slurp(path):match "^(.-\n.-\n.-\n)([^\n]*)\n(.*)\n%x+\n$"
end

--- Writes a file with these parts and the right checksum.
local function spill(path, head, engine, text)
  local body = ("%s%s\n%s"):format(head, engine, text)
  runs.spill(path, body .. ("\n%08x\n"):format(core.crc32c(body)))
end

describe("cuDNN's plans in files", function()
  local dir
  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
  end)
  after_each(function() os.execute("rm -rf " .. dir) end)

  if not convolutions.can_plan() then
    it("exist where cuDNN does", function() pending "no CUDA toolkit and cuDNN here" end)
    return
  end

  it("are used by a later process, which does not search", function()
    local first = plans(kept_in(dir))
    assert.equal(3, #files(dir))
    for _, path in ipairs(files(dir)) do
      local head, _, text = parts(path)
      spill(path, head, "engine of a file", text)
    end
    for i, line in ipairs(plans(kept_in(dir))) do
      assert.equal(first[i]:gsub("engine %d+", "engine of a file"), line)
    end
  end)

  it("are ignored and written again when something is wrong with them", function()
    local function rewritten(change)
      return function(path)
        local head, _, text = parts(path)
        spill(path, change(head, text))
      end
    end
    local function of_another(pattern, other)
      return rewritten(function(head, text) return head:gsub(pattern, other, 1), "engine of a file", text end)
    end
    local wrongs = {
      { "empty", function(path) runs.spill(path, "") end },
      { "cut off", function(path) runs.spill(path, runs.slurp(path):sub(1, -100)) end },
      { "one bit changed", function(path)
        local text = runs.slurp(path)
        runs.spill(path, text:sub(1, -101) .. string.char(text:byte(-100) ~ 1) .. text:sub(-99))
      end },
      { "of another layout", of_another("mptl plan %d+", "mptl plan 0") },
      { "of another cuDNN", of_another("cuDNN [%d.]+", "cuDNN 9.0.0") },
      { "of another device", of_another("H100", "H200") },
      { "of another shape", of_another("\n2 8 ", "\n3 8 ") },
      { "refused by cuDNN", rewritten(function(head, text) return head, "engine of a file", text:sub(1, -10) end) },
      { "nothing for cuDNN", rewritten(function(head) return head, "engine of a file", "" end) },
      { "too long a name", rewritten(function(head, text) return head, ("engine"):rep(10), text end) },
    }
    local expected = plans(kept_in(dir))
    local names, good = files(dir), {}
    for i, path in ipairs(names) do good[i] = runs.slurp(path) end
    for first = 1, #wrongs, #names do -- one fault for each file, then the next ones
      for i, path in ipairs(names) do
        local wrong = wrongs[first + i - 1]
        if wrong then wrong[2](path) end
      end
      assert.same(expected, plans(kept_in(dir)), "from " .. wrongs[first][1])
      for i, path in ipairs(names) do
        local wrong = wrongs[first + i - 1]
        assert.equal(good[i], runs.slurp(path), wrong and wrong[1])
      end
      assert.same(names, files(dir))
    end
  end)

  it("are ignored when they need more workspace than is allowed", function()
    plans(kept_in(dir .. "/much"))
    local expected = plans(kept_in(dir .. "/none"), { mib = 0 })
    local texts = {}
    for _, path in ipairs(files(dir .. "/much")) do
      local head, _, text = parts(path)
      texts[head:gsub("%d+ bytes\n$", "0 bytes\n")] = text
    end
    for _, path in ipairs(files(dir .. "/none")) do
      local head = parts(path)
      spill(path, head, "engine of a file", assert(texts[head]))
    end
    for i, line in ipairs(plans(kept_in(dir .. "/none"), { mib = 0 })) do
      assert.matches(", 0$", line)
      if not line:find "engine of a file" then assert.equal(expected[i], line) end
    end
    local left = 0 -- plans that need no workspace under any limit
    for _, path in ipairs(files(dir .. "/none")) do
      local _, engine = parts(path)
      if engine == "engine of a file" then left = left + 1 end
    end
    assert.equal(1, left)
  end)

  it("record for which passes there is no engine, so that no process searches again", function()
    local shapes = { { 2, 4, 8, 8, 8, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 2 } } -- in groups
    local function narrow() return convolutions.plans("h100", "bf16", shapes, { environment = kept_in(dir) }) end
    local first, refused = narrow(), {}
    assert.same({ "ok", "no", "no" }, { first[1]:sub(1, 2), first[2]:sub(1, 2), first[3]:sub(1, 2) })
    assert.equal(3, #files(dir))
    for _, path in ipairs(files(dir)) do
      local head, engine, text = parts(path)
      if engine == "refused" then
        assert.equal("cuDNN has no engine", text)
        spill(path, head, engine, "a file has no engine")
        refused[#refused + 1] = path
      end
    end
    assert.equal(2, #refused)
    local again = narrow()
    assert.equal(first[1], again[1])
    for i = 2, 3 do assert.equal(first[i]:gsub("cuDNN has", "a file has"), again[i]) end
    for _, path in ipairs(refused) do runs.spill(path, runs.slurp(path):sub(1, -2)) end -- cut off: searched again
    assert.same(first, narrow())
  end)

  it("do not record failures that may have other reasons than the engines", function()
    local libraries = { os.getenv "MPTL_BUILD" .. "/spec/compiler" } -- compiles an empty kernel, not cuDNN's
    local environment = kept_in(dir) .. " MPTL_SPEC_COMPILES=little"
    local lines = convolutions.plans("h100", "bf16", { shape }, { environment = environment, libraries = libraries })
    for _, line in ipairs(lines) do assert.matches("^no .*CUDNN_STATUS_NOT_SUPPORTED", line) end
    assert.is_nil(lfs.attributes(dir))
  end)

  it("are separate for each device", function()
    plans(kept_in(dir))
    plans(kept_in(dir), { device = "a100" })
    assert.equal(6, #files(dir))
  end)

  it("may be written by several processes at once", function()
    local build = os.getenv "MPTL_BUILD"
    local expected = table.concat(plans "MPTL_CUDA_PLANS=none", "\n") .. "\n"
    local pipe = assert(io.popen(([[
      for i in 1 2 3 4; do
        echo %s | MPTL_CUDA_PLANS=%s %s/bin/cuda_plans h100 f32 & done; wait]]):format(table.concat(shape, " "), dir, build)))
    local lines = {}
    for line in pipe:lines() do lines[line] = (lines[line] or 0) + 1 end
    pipe:close()
    for line in expected:gmatch "[^\n]+" do assert.equal(4, lines[line], line) end
    assert.equal(3, #files(dir))
    assert.same(plans "MPTL_CUDA_PLANS=none", plans(kept_in(dir)))
  end)

  it("are below $XDG_CACHE_HOME, else below ~/.cache", function()
    plans(("-u MPTL_CUDA_PLANS XDG_CACHE_HOME=%s/xdg HOME=%s"):format(dir, dir))
    assert.equal(3, #files(dir .. "/xdg/mptl/plans"))
    plans(("-u MPTL_CUDA_PLANS -u XDG_CACHE_HOME HOME=%s"):format(dir))
    assert.equal(3, #files(dir .. "/.cache/mptl/plans"))
  end)

  it("are not written when there is no folder for them", function()
    local expected = plans "MPTL_CUDA_PLANS=none"
    assert.same(expected, plans "-u MPTL_CUDA_PLANS -u XDG_CACHE_HOME -u HOME")
    runs.spill(dir, "a file")
    assert.same(expected, plans(kept_in(dir)))
    assert.same(expected, plans(kept_in(dir .. "/below")))
    assert.equal("a file", runs.slurp(dir))
  end)

  it("are not written when they are switched off", function()
    plans(("MPTL_CUDA_PLANS=none XDG_CACHE_HOME=%s HOME=%s"):format(dir, dir))
    assert.is_nil(lfs.attributes(dir))
    assert.is_nil(lfs.attributes "none")
  end)

  it("do not replace a folder that has their name", function()
    local expected = plans(kept_in(dir))
    local names = files(dir)
    for _, path in ipairs(names) do
      os.remove(path)
      assert(lfs.mkdir(path))
    end
    assert.same(expected, plans(kept_in(dir)))
    for _, path in ipairs(names) do assert.equal("directory", lfs.attributes(path, "mode")) end
    assert.same({}, files(dir))
  end)
end)
