-- bench/step_vs_pytorch with programs that only pretend to measure.
local json = require "dkjson"
local process = require "support.process"

local root = os.getenv "MPTL_ROOT"

local function program(name, text)
  local path = process.file(name, "#!/bin/sh\n" .. text)
  os.execute(("chmod +x '%s'"):format(path))
  return path
end

-- PyTorch's side: writes down its arguments, and reads what to do from the rest of the script.
local function peer(rest)
  return program("python", [[echo "peer $*" >> "$SEEN"
took() {
  echo "{\"torch\": \"2\", \"device\": \"a machine\", \"ms_median\": $1, \"ms_min\": 5, \"peak_bytes\": 1000000}"
}
]] .. rest)
end

local layers = "conv1.weight 8x3x3x3\\nconv1.output 8192\\n" -- for printf

-- Fails when one of its arguments is --channels-last.
local failing = peer(([[case "$*" in
*--layers*) printf '%s' ;;
*--channels-last*) echo "something before" >&2; echo "RuntimeError: no such layout" >&2; exit 3 ;;
*) took 6 ;;
esac]]):format(layers))

local mptl = program("mptl", ([[if [ "$1" = repl ]; then printf '%s'; exit; fi
echo "mptl $*" >> "$SEEN"
echo '{"ms_median": 4, "ms_min": 3, "peak_bytes": 1000000}'
]]):format(layers))

-- Runs the benchmark with these programs in place of Python and of mptl. Returns its output, its
-- errors, its exit status and the commands that it ran.
local function compare(arguments, python, ours)
  local seen, errors = process.file("seen", ""), process.file("errors", "")
  local programs = ("SEEN='%s' PYTHON='%s' MPTL_BIN='%s'"):format(seen, python or failing, ours or mptl)
  local pipe = assert(io.popen(("%s lua5.4 '%s/bench/step_vs_pytorch' %s 2>'%s'"):format(programs, root,
    arguments, errors)))
  local output = pipe:read "a"
  local _, _, code = pipe:close()
  local function text(path)
    local file <close> = assert(io.open(path))
    return file:read "a"
  end
  return output, text(errors), code, text(seen)
end

-- The commands that measure, one a line.
local function measured(seen)
  local list = {}
  for line in seen:gmatch "[^\n]+" do
    if not line:find("--layers", 1, true) then table.insert(list, line) end
  end
  return list
end

describe("bench/step_vs_pytorch", function()
  it("continues after a failure, names it, and fails", function()
    local output, errors, code, seen = compare "--rounds 2 --variants eager --json"
    local result = json.decode(output)
    assert.equal(1, code)
    assert.equal("RuntimeError: no such layout", result.runs[3].failed)
    assert.matches("round 1/2  PyTorch, channels_last +failed: RuntimeError: no such layout", errors)
    assert.not_matches("round 2/2  PyTorch, channels_last", errors)
    assert.matches("something before", errors, 1, true)
    assert.equal(1.5, result.pytorch_over.fp32)
    assert.equal(2, select(2, seen:gsub("peer [^\n]*%-%-steps 5 %-%-json\n", "")))
  end)

  it("reports PyTorch's time when mptl fails", function()
    local output, _, code, seen = compare("--rounds 1", nil, "/nowhere/mptl")
    assert.equal(1, code)
    assert.matches("mptl, fp32 +failed: .*/nowhere/mptl.*not found", output)
    assert.matches("PyTorch, contiguous +6.00 +5.00", output)
    assert.not_matches("as long as mptl", output)
    assert.equal(4, #measured(seen))
  end)

  it("runs mptl with several policies beside one PyTorch", function()
    local output, _, code, seen = compare("--rounds 1 --variants eager --layout channels_last --policy fp32,uniform_low",
peer(([[case "$*" in
*--layers*) printf '%s' ;;
*) took 6 ;;
esac]]):format(layers)))
    assert.equal(0, code, output)
    assert.matches("fastest of PyTorch: PyTorch, channels_last %(PyTorch 2%) takes 1.50 times as long as mptl, fp32\n", output)
    assert.matches("takes 1.50 times as long as mptl, uniform_low\n", output)
    assert.matches("%-%-policy fp32 .*%-%-policy uniform_low ", seen)
    assert.equal(3, #measured(seen))
  end)

  it("reports mptl's time when there is no PyTorch", function()
    local python = peer [[echo "No module named torch" >&2; exit 1]]
    local output, _, code, seen = compare("--rounds 2 --json", python)
    local result = json.decode(output)
    assert.equal(1, code)
    assert.equal(4, result.runs[1].ms_median)
    for i = 2, 5 do assert.equal("No module named torch", result.runs[i].failed) end
    assert.is_nil(next(result.pytorch_over))
    assert.equal(2, #measured(seen)) -- both mptl's
  end)

  it("has the peer upload its batches on a GPU, and run in other ways", function()
    local output, _, _, seen =
      compare "--rounds 1 --steps 200 --device cuda --variants eager,graph,compile"
    assert.matches("uploaded in every step by all", output, 1, true)
    assert.matches("PyTorch, TF32, contiguous, graph +6.00", output)
    local told = measured(seen)
    assert.matches("^mptl ", table.remove(told, 1))
    assert.equal(9, #told)
    for i, line in ipairs(told) do
      assert.matches("--steps 200 --json --data pinned", line, 1, true)
      assert.equal((i + 2) // 3 == 2, line:find("--graph", 1, true) ~= nil)
      assert.equal((i + 2) // 3 == 3, line:find("--compile", 1, true) ~= nil)
    end
    output, _, _, seen = compare "--rounds 1 --device cuda --data resident"
    assert.matches("resident in PyTorch", output, 1, true)
    assert.equal(4, #measured(seen))
  end)

  it("refuses an unknown way of running, and one that the CPU does not have", function()
    local _, errors, code = compare "--variants eager,jit"
    assert.is_true(code ~= 0)
    assert.matches('--variants: "jit", accepted are eager, graph and compile', errors, 1, true)
    _, errors = compare "--variants graph"
    assert.matches("--variants graph: on a GPU only", errors, 1, true)
  end)

  describe("on the CPU", function()
    -- PyTorch's side with a time for each way of running.
    local function timed(contiguous_compile)
      return peer(([[case "$*" in
*--layers*) printf '%s' ;;
*--channels-last*--compile*) took 5 ;;
*--compile*) %s ;;
*--channels-last*) took 7 ;;
*) took 8 ;;
esac]]):format(layers, contiguous_compile))
    end

    it("compares with the fastest of eager and compiled PyTorch, in both layouts", function()
      local output, _, code, seen = compare("--rounds 1 --json", timed "took 9")
      local result = json.decode(output)
      assert.equal(0, code)
      local names, times = {}, {}
      for i, run in ipairs(result.runs) do names[i], times[i] = run.name, run.ms_median end
      assert.same({ "mptl, fp32", "PyTorch, contiguous", "PyTorch, channels_last",
        "PyTorch, contiguous, compile", "PyTorch, channels_last, compile" }, names)
      assert.same({ 4, 8, 7, 9, 5 }, times)
      assert.equal("PyTorch, channels_last, compile", result.pytorch_best)
      assert.equal(1.25, result.pytorch_over.fp32)
      assert.equal(25600, result.runs[5].images_per_s)
      assert.equal(5, #measured(seen))
    end)

    it("prints time, images and ratio of each, and the ratio of PyTorch's best", function()
      local output = compare("--rounds 1", timed "took 9")
      assert.matches("mptl, fp32 +4.00 +3.00 +32000.0 +1 +1.00\n", output)
      assert.matches("PyTorch, contiguous, compile +9.00 +5.00 +14222.2 +1 +2.25\n", output)
      local _, sentences = output:gsub("times as long", "")
      assert.equal(1, sentences)
      assert.matches("fastest of PyTorch: PyTorch, channels_last, compile (PyTorch 2) takes 1.25 times"
        .. " as long as mptl, fp32\n", output, 1, true)
    end)

    it("leaves out the compiled PyTorch where it fails", function()
      local output, errors, code = compare("--rounds 2 --json",
        timed [[echo "torch.compile: no compiler" >&2; exit 1]])
      local result = json.decode(output)
      assert.equal(1, code)
      assert.equal("torch.compile: no compiler", result.runs[4].failed)
      assert.matches("round 1/2  PyTorch, contiguous, compile +failed: torch.compile: no compiler", errors)
      assert.not_matches("round 2/2  PyTorch, contiguous, compile", errors)
      assert.equal("PyTorch, channels_last, compile", result.pytorch_best)
    end)
  end)

  describe("of a network", function()
    it("runs its script in mptl, and its name in PyTorch, at one width", function()
      for name, script in pairs {
        resnet18 = "resnet18_cifar", mobilenetv2 = "mobilenetv2_cifar",
        shufflenetv2 = "shufflenetv2_cifar", squeezenet = "squeezenet_cifar",
        resnet50 = "resnet50_imagenet",
      } do
        local output, _, _, seen =
          compare("--rounds 1 --variants eager --width 0.25 --json --network " .. name)
        local result = json.decode(output)
        assert.same({ name, 0.25, 216 }, { result.network, result.width, result.parameters })
        local commands = measured(seen)
        assert.matches("^mptl bench step " .. script .. ".lua .*%-%-width 0.25 ", commands[1])
        local theirs = "pytorch_step.py --network " .. name .. " --width 0.25 "
        assert.matches(theirs .. "--device", commands[2], 1, true)
        assert.matches(theirs .. "--layers\n", seen, 1, true)
      end
    end)

    it("refuses one that it does not know, and low precision in another than ResNet-18", function()
      local _, errors, code, seen = compare "--network vgg"
      assert.is_true(code ~= 0)
      assert.matches("must be one of 'resnet18', 'mobilenetv2', 'shufflenetv2', 'squeezenet',"
        .. " 'resnet50'", errors, 1, true)
      _, errors = compare "--network resnet50 --emulated"
      assert.matches("--emulated --network resnet50: QPyTorch has resnet18 only", errors, 1, true)
      assert.equal("", seen)
    end)

    it("measures nothing when the two sides differ", function()
      for theirs, message in pairs {
        ["conv1.weight 8x3x1x1\\nconv1.output 8192\\n"] =
          "conv1.weight is 8x3x3x3 in mptl, 8x3x1x1 in PyTorch; parameters: 216 in mptl, 24 in ",
        ["conv1.weight 8x3x3x3\\nconv1.output 2048\\n"] =
          "conv1.output is 8192 in mptl, 2048 in PyTorch; parameters: 216 in mptl, 216 in ",
        ["conv1.weight 8x3x3x3\\n"] =
          "conv1.output is 8192 in mptl, missing in PyTorch; parameters: 216 in mptl, 216 in ",
        [layers .. "conv1.bias 8\\n"] =
          "conv1.bias is missing in mptl, 8 in PyTorch; parameters: 216 in mptl, 224 in ",
      } do
        local output, errors, code, seen = compare("", peer(("printf '%s'"):format(theirs)))
        message = ("step_vs_pytorch: the networks differ: %sPyTorch\n"):format(message)
        assert.same({ 2, "", message }, { code, output, errors })
        assert.same({}, measured(seen))
      end
    end)

    it("has the layers of the script in mptl", function()
      local arguments, bin = "--network squeezenet --width 0.1", os.getenv "MPTL_BIN"
      local first = "stem.0.weight 12x3x3x3\\nstem.0.bias 12\\nstem.0.output "
      local _, errors, code = compare(arguments, peer(("printf '%s3072'"):format(first)), bin)
      assert.equal(2, code)
      assert.matches("stem.0.output is 12288 in mptl, 3072 in PyTorch; parameters: 36482 in mptl, 336 in",
        errors, 1, true)
      local second = first .. "12288\\nstem.1.weight 12\\nstem.1.bias 12\\nstem.1.output 12288"
      _, errors = compare(arguments, peer(("printf '%s'"):format(second)), bin)
      assert.matches("fire2.squeeze.0.weight is 4x12x1x1 in mptl, missing in PyTorch", errors, 1, true)
    end)
  end)
end)
