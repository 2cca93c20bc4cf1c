local completion = require "mptl.completion"
local process = require "support.process"

local function repl(input, ...)
  return process.mptl({ "repl", ... }, { stdin = input, seconds = 60 })
end

describe("mptl repl", function()
  it("prints the values of expressions", function()
    local result = repl '1 + 1\n"a", nil, 2.5\nx = 7\nx\n= x * 2\n{ 1, 2, a = "b" }\nlocal y = 3\n'
    assert.equal('2\na\tnil\t2.5\n7\n14\n{ 1, 2, a = "b" }\n', result.out)
    assert.same({ "", 0 }, { result.err, result.status })
  end)

  it("accepts input of several lines", function()
    assert.equal("1\n2\n", repl("for i = 1, 2 do\nprint(i)\nend\n").out)
  end)

  it("prints errors, continues, and exits with 1", function()
    local result = repl 'error "boom"\nx = = 1\nnil + 1\n5\nfor'
    assert.equal("5\n", result.out)
    assert.matches("^stdin:1: boom\nstdin:1: unexpected symbol near '='\nstdin:1: attempt to perform arithmetic on a nil value\n"
      .. "stdin:1: <name> expected near <eof>\n$", result.err)
    assert.equal(1, result.status)
    for _, text in ipairs { 'error "boom"\n1\n', "x = = 1\n1\n", "for" } do assert.equal(1, repl(text).status) end
    assert.equal(0, repl("pcall(error)\n").status)
    assert.equal(3, repl("1\nos.exit(3)\n").status)
  end)

  it("prints something for every value", function()
    for value, shown in pairs {
      ["{ 1, a = 2 }, { __metatable = 42 }"] = "{ 1, a = 2 }",
      ["{}, { __metatable = 42, __tostring = function() return 'mine' end }"] = "mine",
      ["{ 1 }, { __len = error }"] = "{ 1 }",
      ["{ 1 }, { __len = function() return 2 ^ 60 end }"] = "{ 1 }",
      ["{ 1 }, { __index = error, __pairs = error, __eq = error, __lt = error, __name = 42 }"] = "{ 1 }",
      ["{ 1 }, { __index = function(t, k) while true do end end }"] = "{ 1 }",
      ["{ 1 }, { __pairs = function() return function() return 1 end end }"] = "{ 1 }",
    } do
      local result = repl(("setmetatable(%s)\n'next'\n"):format(value))
      assert.same({ shown .. "\nnext\n", "", 0 }, { result.out, result.err, result.status })
    end
    for value, shown in pairs {
      ["{ 1 }, { __tostring = function() error('no\\nluck', 0) end }"] = "table: 0x%x+ %(its __tostring fails: no luck%)",
      ["{ 1 }, { __tostring = function() return {} end }"] = "table: 0x%x+ %(its .*: '__tostring' must return a string%)",
      ["{ 1 }, { __tostring = 7 }"] = "table: 0x%x+ %(its __tostring fails: attempt to call a number value%)",
      ["{ 1 }, { __tostring = function() error(setmetatable({}, { __tostring = error })) end }"] = "table: 0x%x+ %(its .*0x%x+%)",
      ["{ 1 }, { __tostring = function(t) return tostring(t) end }"] = "table: 0x%x+ %(its __tostring fails: .*overflow.*",
    } do
      local result = repl(("x = setmetatable(%s)\nx\n{ x, [x] = x }\n'next'\n"):format(value))
      assert.matches("^" .. shown .. "\n{ " .. shown .. ", " .. shown .. " = " .. shown .. " }\nnext\n$", result.out)
      assert.same({ "", 0 }, { result.err, result.status })
    end
    assert.matches("^4.5 %(its __tostring fails: .*%)\n$", repl("_ = debug.setmetatable(1, { __tostring = error })\n4.5\n").out)
  end)

  it("prints errors that are not strings", function()
    for thrown, said in pairs {
      ["{ code = 1 }"] = "^{ code = 1 }\n$", ["nil"] = "^nil\n$", ["setmetatable({}, { __metatable = 42 })"] = "^{  }\n$",
      ["setmetatable({}, { __tostring = error })"] = "^table: 0x%x+ %(its __tostring fails: .*%)\n$",
    } do
      local result = repl(("error(%s)\n'next'\n"):format(thrown))
      assert.matches(said, result.err)
      assert.same({ "next\n", 1 }, { result.out, result.status })
    end
  end)

  it("works without functions that the user removed", function()
    for _, text in ipairs { "string.find, string.match, string.format, string.gsub, table.concat = nil", "_G.print = error",
      "_G.tostring = nil", "_G.pcall = nil", "getmetatable('').__index = error", "io.stdout, io.stdin, io.stderr = nil" } do
      local result = repl(text .. "\n1 + 1, { 2 }\nerror 'boom'\n'next'\n")
      assert.same({ "2\t{ 2 }\nnext\n", 1 }, { result.out, result.status })
    end
  end)

  it("in a pipe ends on SIGINT, with 130", function()
    local result = repl "io.popen('kill -INT $PPID'):close() while true do end\n'not this'\n"
    assert.same({ "", 130 }, { result.out, result.status })
    assert.matches("interrupted!\n$", result.err)
  end)

  it("has the library loaded", function()
    assert.equal("Linear(2, 3)\nFP(4,3,4)\n16\n",
      repl('nn.Linear { 2, 3 }\ncore.format("FP(4,3,4)").name\nmptl.nn.divisible(17, 8)\n').out)
  end)

  it("opens a script", function()
    local result = repl("script.batch, plan.graph:ratio_lo() >= 0.5, #graph:operators()\n", "resnet18_cifar")
    assert.equal("128\ttrue\t70\n", result.out)
    local opened = repl('open "resnet18_cifar"\nplan.graph:group(5)\n').out
    assert.equal("group 5: 67272960 elements, low\n", opened:match("\n(.*)$"))
    assert.equal(2, repl("", "nonsense").status)
  end)

  it("helps", function()
    assert.matches("\nprecision   policies", repl("help()\n").out)
    assert.matches(
      "\ndemotion     precision.demotion{ formats = \"hfp8\", ratio = 0.5, threshold = 0.01 }", repl("help(precision)\n").out)
    assert.equal('precision.uniform "FP(6,9,0)": every tensor in one format\n', repl("help(precision.uniform)\n").out)
    assert.matches("\nshape +The shape of a data set's images, and its number of classes%.\n", repl("help(mptl.data)\n").out)
    assert.matches("^nn.Conv2d{ input, output, kernel = 3", repl("help(nn.Conv2d)\n").out)
    assert.matches("^The nearest multiple of divisor", repl("help(nn.divisible)\n").out)
    assert.matches("no help on this number", repl("help(3)\n").out)
  end)
end)

describe("mptl repl, interrupted in code that does not react", function()
  it("says so, and ends at the third Ctrl-C", function()
    if os.getenv "MPTL_SANITIZE" == "thread" then
      pending "TSan keeps a signal back until the program calls its C library, which an empty loop in Lua does not"
      return
    end
    local result = repl("pid = io.popen('echo $PPID'):read 'n'\n"
      .. "os.execute('(for i in 1 2 3; do sleep 0.3; kill -INT '..pid..'; done) &')\n"
      .. "setmetatable({}, { __gc = function() while true do end end }) collectgarbage()\n")
    assert.matches("the running code does not react to Ctrl%-C; another one ends the program\n$", result.err)
    assert.is_true(result.status == 130 or result.status == 2)
  end)
end)

describe("mptl repl on a terminal", function()
  -- Types through a pseudo-terminal (script is in Debian's bsdutils). Before each piece of typing waits until the terminal has
  -- shown the pattern beside it.
  local function typing(state, pieces)
    -- libedit keeps its editor until the process ends: not a leak, though LeakSanitizer reports one
    local env = ("ASAN_OPTIONS=detect_leaks=0 TERM=xterm XDG_STATE_HOME='%s'"):format(state)
    local shown = os.tmpname()
    local commands = { 'await() { n=0; until grep -q "$1" "$shown" || [ $n = 600 ]; do sleep 0.05; n=$((n + 1)); done; }' }
    for _, piece in ipairs(pieces) do
      commands[#commands + 1] = ("await '%s'; printf '%s'"):format(piece[1], piece[2])
    end
    os.execute(("shown='%s'; { %s; } | %s timeout -s KILL 60 script -qefc '\"%s\" repl' \"$shown\" > /dev/null"):format(shown,
      table.concat(commands, "; "), env, os.getenv "MPTL_BIN"))
    local file = assert(io.open(shown))
    local output = file:read "a"
    file:close()
    os.remove(shown)
    return (output:gsub("\r", ""))
  end

  local state

  before_each(function() state = process.file("unused", ""):match("^(.*)/") end)

  it("completes names, and keeps a history for the next session", function()
    assert.matches("\nfp32\nmptl> ", typing(state, { { "mptl> ", "mptl.prec\\t.fp\\t().name\\n\\004" } }))
    assert.matches("\nfp32\nmptl> ", typing(state, { { "mptl> ", "\\033[A\\n\\004" } }))
  end)

  it("stops completing a value that computes its fields endlessly", function()
    local value = "loop = setmetatable({}, { __index = function() while true do pcall(function() while 1 do end end) end end })"
    assert.matches("\nstill here\n", typing(state, { { "mptl> ", value .. "\\n" }, { "mptl> $", "loop.x.y\\t" },
      { "loop.x.y$", "\\003" }, { "mptl> $", '"still " .. "here"\\n\\004' } }))
  end)

  it("survives Ctrl-C at any time", function()
    if os.getenv "MPTL_SANITIZE" == "thread" then return end
    local output = typing(state, { { "mptl> ", ("\\003"):rep(5) .. 'print("run" .. "ning") while true do pcall(error) end\\n' },
      { "^running", "\\003" }, { "interrupted!", ("\\003"):rep(5) .. '"still " .. "here"\\n\\004' } })
    assert.matches("\nstill here\n", output)
  end)

  it("drops the line on Ctrl-C, and stops running code", function()
    if os.getenv "MPTL_SANITIZE" == "thread" then
      pending "TSan keeps a signal back until the program calls its C library, which an empty loop in Lua does not"
      return
    end
    local output = typing(state, {
      { "mptl> ", "for junk" }, { "for junk", "\\003" }, { "^mptl> $", "6 * 7\\n" },
      { "^42", 'print("run" .. "ning") while true do end\\n' }, { "^running", "\\003" },
      { "interrupted!", '"still " .. "here"\\n\\004' },
    })
    assert.matches("\n42\n", output)
    assert.matches("interrupted!\n", output)
    assert.matches("\nstill here\n", output)
  end)
end)

describe("mptl repl, interrupted", function()
  if os.getenv "MPTL_SANITIZE" == "thread" then return end -- keeps signals back from Lua's loops
  -- Each line calls ready, which sends Ctrl-C after 0.2 s, and then does not end by itself.
  for what, line in pairs {
    ["a loop that catches errors"] = "ready() while true do pcall(function() while true do end end) end",
    ["a loop in a coroutine"] = "ready() coroutine.wrap(function() while true do pcall(function() while 1 do end end) end end)()",
    ["a coroutine from before"] = "ready() old()",
    ["__index"] = "ready() return setmetatable({}, { __index = function() while true do end end }).x",
    ["__pairs"] = "ready() for _ in pairs(setmetatable({}, { __pairs = function() return function() return 1 end end })) do end",
    ["__tostring, as it is printed"] = "setmetatable({}, { __tostring = function() ready() while true do end end })",
    ["__tostring, in a table"] = "{ setmetatable({}, { __tostring = function() ready() while true do end end }) }",
    ["__tostring of an error"] = "error(setmetatable({}, { __tostring = function() ready() while true do end end }))",
    ["__close"] = "local x <close> = setmetatable({}, { __close = function() ready() while true do end end })",
    ["help"] = "help(setmetatable({}, { __pairs = function() ready() return function() return 1 end end }))",
  } do
    it("ends " .. what, function()
      local result = repl("function ready() os.execute('(sleep 0.2; kill -INT '..pid..') &') end\n"
        .. "pid = io.popen('echo $PPID'):read 'n'\nold = coroutine.wrap(function() while true do end end)\n" .. line .. "\n1\n")
      assert.matches("interrupted!", result.err .. result.out)
      assert.equal(130, result.status)
    end)
  end
end)

describe("completion.candidates()", function()
  local env = setmetatable({ mptl = require "mptl", nn = require "mptl.nn", value = { a1 = 1, a2 = { deep = 1 }, _hidden = 1 } },
    { __index = _G })

  it("gives globals, fields and the parts not loaded yet", function()
    assert.same({ "value" }, completion.candidates(env, "valu"))
    assert.same({ "value.a1", "value.a2" }, completion.candidates(env, "value."))
    assert.same({ "value.a2.deep" }, completion.candidates(env, "value.a2.d"))
    assert.same({ "mptl.checkpoint", "mptl.core" }, completion.candidates(env, "mptl.c"))
    assert.same({ "string.format" }, completion.candidates(env, "string.fo"))
  end)

  it("gives the methods of objects", function()
    local precision = require "mptl.precision"
    local graph = env.nn.record(env.nn.Sequential { env.nn.Flatten(), env.nn.Linear { 12, 2 } }, { input = { 3, 2, 2 } })
    env.plan = precision.plan(precision.fp32(), graph, 1)
    env.graph = graph
    assert.same({ "plan.graph:operator", "plan.graph:operators", "plan.graph:order" }, completion.candidates(env, "plan.graph:o"))
    assert.same({ "graph:operators" }, completion.candidates(env, "graph:op"))
  end)

  it("does not run a value's code", function()
    env.odd = setmetatable({ a1 = 1, parts = 7 },
      { __pairs = error, __eq = error, __metatable = 42, __index = error, accepted = 7 })
    env.a, env.b = {}, {}
    setmetatable(env.a, { __index = env.b })
    setmetatable(env.b, { __index = env.a })
    assert.same({ "odd.a1", "odd.parts" }, completion.candidates(env, "odd."))
    assert.same({}, completion.candidates(env, "a."))
    assert.same({}, completion.candidates(env, "odd.field.x"))
  end)

  it("gives nothing when there are no candidates", function()
    assert.same({}, completion.candidates(env, "value.b"))
    assert.same({}, completion.candidates(env, "nothing.at.all"))
  end)
end)
