local process = require "support.process"

local function fails(status, message, ...)
  local result = process.mptl { ... }
  assert.equal("", result.out)
  assert.equal(message .. "\n", result.err)
  assert.equal(status, result.status)
end

local function fails_matching(status, pattern, ...)
  local result = process.mptl { ... }
  assert.matches(pattern, result.err)
  assert.equal(1, select(2, result.err:gsub("\n", "")))
  assert.equal(status, result.status)
end

describe("mptl", function()
  it("without arguments lists its commands", function()
    local result = process.mptl {}
    assert.equal(0, result.status)
    assert.matches("usage: mptl COMMAND %[options%]", result.out)
    assert.matches("\n  plan     show groups", result.out)
    assert.equal(result.out, process.mptl({ "--help" }).out)
  end)

  it("prints its version", function()
    assert.matches("^mptl %d+%.%d+%.%d+\n$", process.mptl({ "--version" }).out)
  end)

  it("has --help on every command it lists", function()
    local n = 0
    for name in process.mptl({}).out:gmatch("\n  (%l+) ") do
      local result = process.mptl { name, "--help" }
      assert.matches("^Usage: mptl " .. name, result.out)
      assert.same({ "", 0 }, { result.err, result.status })
      assert.equal(result.out, process.mptl({ "help", name }).out)
      n = n + 1
    end
    assert.is_true(n >= 3)
  end)

  it("names an unknown command or option, and what is accepted", function()
    fails_matching(2, '^mptl: command plam: unknown %(did you mean "plan"%?%), accepted are .*plan, ', "plam")
    fails_matching(2, "^mptl: option %-%-verbose: unknown", "--verbose")
    fails(2, "mptl plan: unknown option '--bach' (did you mean '--batch'?); mptl plan --help lists them",
      "plan", "x", "--bach", "3")
    fails(2, "mptl plan: unknown option '--zzzzzz'; mptl plan --help lists them", "plan", "x", "--zzzzzz")
  end)

  it("names a wrong value, and what is accepted", function()
    local function wrong(option, value, accepted)
      fails(2, ("mptl plan: --%s: %s, accepted are %s"):format(option, value, accepted), "plan", "resnet18_cifar",
        "--" .. option, value)
    end
    wrong("batch", "0", "whole numbers from 1 to 65536")
    wrong("batch", "1.5", "whole numbers from 1 to 65536")
    wrong("batch", "many", "whole numbers from 1 to 65536")
    wrong("width", "0", "numbers above 0 to 16")
    wrong("lr", "nan", "numbers above 0 to 1e+06")
    wrong("ratio", "1.01", "numbers from 0 to 1")
    wrong("threshold", "0", "numbers above 0 to 1, off")
    wrong("device", "gpu", "auto, cpu, cuda, cuda:N")
    wrong("dataset", "cifra10", 'cifar10, cifar100, imagenet, synthetic (did you mean "cifar10"?)')
    wrong("storage", "compact", "packed, emulated")
    wrong("rounding", "nearest", "nearest_even, nearest_away, toward_zero, up, down, stochastic")
    wrong("formats", "hfp9", 'bf16, fp16, fp8, hfp8, HIGH/LOW (did you mean "hfp8"?)')
    wrong("policy", "demoton",
      'fp32, uniform_low, operator, amp, demotion, increasing, random, top_k, FILE.lua (did you mean "demotion"?)')
    wrong("policy", "absent.lua",
      "fp32, uniform_low, operator, amp, demotion, increasing, random, top_k, FILE.lua (no such file)")
  end)

  it("names an option that the policy does not have", function()
    fails(2, "mptl plan: --ratio: the policy operator has no ratio, it has formats, threshold",
      "plan", "resnet18_cifar", "--policy",
      "operator", "--ratio", "0.3")
  end)

  it("says in the help of --threads what depends on their number", function()
    for _, command in ipairs { "train", "eval", "bench step" } do
      local words = { "--help" }
      for word in command:gmatch "%a+" do table.insert(words, #words, word) end
      assert.matches("results do not depend on it, except with --compute onednn", process.mptl(words).out, 1, true)
    end
  end)

  it("names missing and surplus arguments", function()
    fails(2, "mptl plan: missing argument 'script'", "plan")
    fails(2, "mptl plan: option '--batch' requires an argument", "plan", "resnet18_cifar", "--batch")
    fails(2, "mptl plan: too many arguments: b; mptl plan --help lists them", "plan", "a", "b")
  end)
end)

describe("standard output that cannot be written", function()
  for _, command in ipairs { "formats", "--version", "--help", "plan resnet18_cifar", "doctor" } do
    it("is an error: " .. command, function()
      local pipe = io.popen(("{ %s %s >/dev/full; echo $?; } 2>&1"):format(os.getenv "MPTL_BIN", command))
      -- the reason is known only when all output is written at the end
      assert.matches("^mptl: cannot write standard output[^\n]*\n1\n$", pipe:read "a")
      pipe:close()
    end)
  end

  it("does not matter when nothing is printed", function()
    local pipe = io.popen(("{ %s round --format fp16 </dev/null >&-; echo $?; } 2>&1"):format(os.getenv "MPTL_BIN"))
    assert.equal("0\n", pipe:read "a")
    pipe:close()
  end)
end)

describe("what a newcomer types", function()
  it("gets an answer of one line", function()
    fails_matching(2, '^mptl: command trian: unknown %(did you mean "train"%?%), ', "trian")
    fails_matching(2, '^mptl: command trian: unknown %(did you mean "train"%?%), ', "help", "trian")
    fails(2, "mptl plan: --epochs: -1, accepted are whole numbers from 1 to 1000000", "plan", "resnet18_cifar", "--epochs", "-1")
    fails(2, "mptl plan: --lr: -.5, accepted are numbers above 0 to 1e+06", "plan", "resnet18_cifar", "--lr", "-.5")
    fails(2, "mptl data: a command is required, accepted are fetch, import, check, synthesize", "data")
    fails_matching(2, "^mptl bench: unknown command 'rounds' .*, accepted are round, ", "bench", "rounds")
    fails(2, "mptl data: unknown option '--bad'; mptl data fetch --help lists them", "data", "fetch", "--bad")
    local dir = process.file("x.lua", ""):match "^(.*)/"
    fails_matching(2, "^mptl plan: script " .. dir:gsub("%p", "%%%0") .. ": not a file; accepted are ", "plan", dir)
  end)

  it("may be a script that does anything", function()
    for text, said in pairs {
      ["local x = = 3"] = "x.lua:1: unexpected symbol near '='", ["error 'boom'"] = "x.lua:1: boom",
      ["error { code = 1 }"] = "error object: a table, without __tostring", [""] = "x.lua: returned nothing, must return",
      ["error(setmetatable({}, { __tostring = error }))"] = "a table whose __tostring fails",
      ["require 'no.such'"] = "x.lua:1: module 'no.such' not found in the usual places, LUA_PATH or LUA_CPATH",
      ["return { 1 }"] = "x.lua: unknown field 1, accepted are",
      ["return { model = 1, lr = {} }"] = "x.lua: lr: a table, accepted are",
      ["return { model = 1, policy = setmetatable({}, { __tostring = error }) }"] = "policy: a table whose __tostring fails, ",
      ["return setmetatable({}, { __tostring = error, __pairs = function() error('no', 0) end })"] = "mptl: no",
    } do
      local result = process.mptl { "plan", process.file("x.lua", text) }
      assert.matches("^mptl: [^\n]*" .. said:gsub("%p", "%%%0"):gsub("^mptl%%: ", "") .. "[^\n]*\n$", result.err)
      assert.same({ "", 1 }, { result.out, result.status })
    end
  end)

  it("works with a LUA_PATH that was set for another program", function()
    local env = { LUA_PATH = "/nonexistent/?.lua", LUA_CPATH = "/nonexistent/?.so" }
    assert.equal(0, process.mptl({ "formats", "bf16" }, { env = env }).status)
    local other = process.file("argparse.lua", "error 'for another Lua'"):gsub("argparse", "?")
    assert.equal(0, process.mptl({ "formats", "bf16" }, { env = { LUA_PATH = other, LUA_PATH_5_4 = other } }).status)
  end)

  it("gets one line when parts of the program are missing", function()
    local copy = process.file("mptl", "")
    local command = ("cp '%s' '%s' && chmod +x '%s' && LUA_PATH=/nonexistent/?.lua '%s' doctor 2>&1"):format(os.getenv "MPTL_BIN",
      copy, copy, copy)
    local pipe = io.popen(command)
    assert.equal("mptl: module 'mptl.cli' not found in the usual places, LUA_PATH or LUA_CPATH\n", pipe:read "a")
    assert.is_nil(pipe:close())
  end)
end)

describe("mptl doctor", function()
  it("describes the machine and says what is missing", function()
    local result = process.mptl { "doctor", "--data", "/nonexistent" }
    assert.equal(0, result.status)
    assert.matches("processor  .+, %d+ cores", result.out)
    assert.matches("missing    data set cifar10: not in /nonexistent\n", result.out)
    local json = require "mptl.json"
    local t = assert(json.decode(process.mptl({ "doctor", "--json" }).out))
    assert.equal("Lua 5.4", t.lua)
    assert.is_true(t.cores >= 1)
  end)
end)
