-- bench/step_vs_pytorch with programs that only pretend to measure.
local json = require "dkjson"
local process = require "support.process"

local root = os.getenv "MPTL_ROOT"

-- Prints its arguments and fails if one of them is --channels-last.
local peer = process.file("python", [[#!/bin/sh
echo "peer $*" >> "$SEEN"
case "$*" in *--channels-last*) echo "something before" >&2; echo "RuntimeError: no such layout" >&2; exit 3 ;; esac
echo '{"torch": "2", "device": "a machine", "ms_median": 6, "ms_min": 5, "peak_bytes": 1000000}'
]])
local mptl = process.file("mptl", [[#!/bin/sh
echo '{"ms_median": 4, "ms_min": 3, "peak_bytes": 1000000}'
]])
os.execute(("chmod +x '%s' '%s'"):format(peer, mptl))

-- Output, errors, exit status and the peer's arguments.
local function compare(arguments, ours)
  local seen, errors = process.file("seen", ""), process.file("errors", "")
  local pipe = assert(io.popen(("SEEN='%s' PYTHON='%s' MPTL_BIN='%s' lua5.4 '%s/bench/step_vs_pytorch' %s 2>'%s'"):format(
    seen, peer, ours or mptl, root, arguments, errors)))
  local output = pipe:read "a"
  local _, _, code = pipe:close()
  local function text(path)
    local file <close> = assert(io.open(path))
    return file:read "a"
  end
  return output, text(errors), code, text(seen)
end

describe("bench/step_vs_pytorch", function()
  it("continues after a failure, names it, and fails", function()
    local output, errors, code, seen = compare "--rounds 2 --json"
    local result = json.decode(output)
    assert.equal(1, code)
    assert.equal("RuntimeError: no such layout", result.runs[3].failed)
    assert.matches("round 1/2  PyTorch, channels_last +failed: RuntimeError: no such layout", errors)
    assert.not_matches("round 2/2  PyTorch, channels_last", errors)
    assert.matches("something before", errors, 1, true)
    assert.equal(1.5, result.pytorch_over_mptl)
    assert.equal(2, select(2, seen:gsub("%-%-steps 5 %-%-json\n", "")))
  end)

  it("reports PyTorch's time when mptl fails", function()
    local output, _, code = compare("--rounds 1", "/nowhere/mptl")
    assert.equal(1, code)
    assert.matches("mptl +failed: .*/nowhere/mptl.*not found", output)
    assert.matches("PyTorch, contiguous +6.00 +5.00", output)
  end)

  it("has the peer upload its batches on a GPU, and run in other ways", function()
    local output, _, _, seen = compare "--rounds 1 --steps 200 --device cuda --variants eager,graph,compile"
    assert.matches("uploaded in every step by all", output, 1, true)
    assert.matches("PyTorch, TF32, contiguous, graph +6.00", output)
    local told = {}
    for line in seen:gmatch "[^\n]+" do table.insert(told, line) end
    assert.equal(9, #told)
    for i, line in ipairs(told) do
      assert.matches("--steps 200 --json --data pinned", line, 1, true)
      assert.equal((i + 2) // 3 == 2, line:find("--graph", 1, true) ~= nil)
      assert.equal((i + 2) // 3 == 3, line:find("--compile", 1, true) ~= nil)
    end
    assert.matches("resident in PyTorch", compare "--rounds 1 --device cuda --data resident", 1, true)
  end)

  it("refuses an unknown way of running, and one that the CPU does not have", function()
    local _, errors, code = compare "--variants eager,jit"
    assert.is_true(code ~= 0)
    assert.matches('--variants: "jit", accepted are eager, graph and compile', errors, 1, true)
    _, errors = compare "--variants graph"
    assert.matches("--variants graph: on a GPU only", errors, 1, true)
  end)
end)
