local completion = require "mptl.completion"
local process = require "support.process"

local function repl(input, ...)
  return process.mptl({ "repl", ... }, { stdin = input })
end

describe("mptl repl", function()
  it("prints the values of expressions", function()
    local result = repl '1 + 1\n"a", nil, 2.5\nx = 7\nx\n= x * 2\n{ 1, 2, a = "b" }\nlocal y = 3\n'
    assert.equal('2\na\tnil\t2.5\n7\n14\n{ 1, 2, a = "b" }\n', result.out)
    assert.same({ "", 0 }, { result.err, result.status })
  end)

  it("takes input of several lines", function()
    assert.equal("1\n2\n", repl("for i = 1, 2 do\nprint(i)\nend\n").out)
  end)

  it("tells errors and goes on", function()
    local result = repl 'error "boom"\nx = = 1\nnil + 1\n5\nfor'
    assert.equal("5\n", result.out)
    assert.matches("^stdin:1: boom\nstdin:1: unexpected symbol near '='\nstdin:1: attempt to perform arithmetic on a nil value\n"
      .. "stdin:1: <name> expected near <eof>\n$", result.err)
    assert.equal(0, result.status)
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
    assert.matches("^nn.Conv2d{ input, output, kernel = 3", repl("help(nn.Conv2d)\n").out)
    assert.matches("^The nearest multiple of divisor", repl("help(nn.divisible)\n").out)
    assert.matches("no help on this number", repl("help(3)\n").out)
  end)
end)

describe("mptl repl on a terminal", function()
  -- Types through a pseudo-terminal (script is in Debian's bsdutils). Before each piece of typing waits until the terminal has
  -- shown the pattern beside it.
  local function typing(state, pieces)
    -- libedit keeps its one editor to the end of the process: no leak, though LeakSanitizer says so
    local env = ("ASAN_OPTIONS=detect_leaks=0 TERM=xterm XDG_STATE_HOME='%s'"):format(state)
    local shown = os.tmpname()
    local commands = { 'await() { n=0; until grep -q "$1" "$shown" || [ $n = 600 ]; do sleep 0.05; n=$((n + 1)); done; }' }
    for _, piece in ipairs(pieces) do
      commands[#commands + 1] = ("await '%s'; printf '%s'"):format(piece[1], piece[2])
    end
    os.execute(("shown='%s'; { %s; } | %s script -qefc '\"%s\" repl' \"$shown\" > /dev/null"):format(shown,
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

  it("drops the line on Ctrl-C, and stops what runs", function()
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

  it("gives nothing where there is nothing", function()
    assert.same({}, completion.candidates(env, "value.b"))
    assert.same({}, completion.candidates(env, "nothing.at.all"))
  end)
end)
