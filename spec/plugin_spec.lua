-- Which device a command runs on, and what it says when that is not available.
local json = require "mptl.json"
local lfs = require "lfs"
local process = require "support.process"

local build = os.getenv "MPTL_BUILD"

--- Runs mptl plan on a device with a plug-in; returns its result.
local function plan(device, plugin)
  return process.mptl({ "plan", "resnet18_cifar", "--width", "0.1", "--device", device, "--json" },
    { env = { MPTL_CUDA_PLUGIN = plugin } })
end

local function refused(message, device, plugin)
  local result = plan(device, plugin)
  assert.equal(2, result.status)
  assert.equal(("mptl plan: --device %s: %s\n"):format(device, message), result.err)
end

describe("the plug-in for CUDA", function()
  it("is missing", function()
    refused("no plug-in /nonexistent.so (MPTL_CUDA_PLUGIN)", "cuda", "/nonexistent.so")
  end)

  it("is switched off", function() refused("switched off by MPTL_CUDA_PLUGIN=none", "cuda:1", "none") end)

  it("is another library", function()
    refused(build .. "/lib/libmptl.so is no plug-in of mptl", "cuda", build .. "/lib/libmptl.so")
  end)

  it("is not a library", function()
    local result = plan("cuda", "/etc/passwd")
    assert.matches("^mptl plan: %-%-device cuda: the plug%-in cannot be opened: /etc/passwd: [^\n]+\n$", result.err)
  end)

  it("has another version", function()
    local result = plan("cuda", build .. "/lib/other_interface.so")
    assert.matches("/other_interface.so was built for another version of mptl %(interface %d+, this one has %d+%)\n$", result.err)
    assert.equal(2, result.status)
  end)

  it("finds no GPU", function() refused("no NVIDIA driver", "cuda", build .. "/lib/no_gpu.so") end)
end)

describe("the device", function()
  it("is the CPU on auto, when there is no GPU", function()
    local result = plan("auto", build .. "/lib/no_gpu.so")
    assert.equal(0, result.status)
    assert.equal(result.out, plan("cpu", build .. "/lib/no_gpu.so").out)
  end)

  it("is named by mptl doctor, or what is missing for it", function()
    local result = process.mptl({ "doctor", "--json" }, { env = { MPTL_CUDA_PLUGIN = build .. "/lib/no_gpu.so" } })
    local t = assert(json.decode(result.out))
    assert.same({ "cpu" }, t.devices)
    assert.equal("no library", t.cuda)
    local missing = {}
    for _, what in ipairs(t.missing) do missing[what] = true end
    assert.is_true(missing["device cuda: no NVIDIA driver"])
  end)

  it("loads the libraries that mptl doctor names", function()
    local plugin = build .. "/lib/libmptl_cuda.so"
    if not lfs.attributes(plugin) then return pending "no plug-in for NVIDIA GPUs here" end
    local files = {}
    local environment = { MPTL_CUDA_PLUGIN = plugin }
    local t = assert(json.decode(process.mptl({ "doctor", "--json" }, { env = environment }).out))
    for _, path in ipairs(t.libraries) do
      assert.equal("file", lfs.attributes(path, "mode"))
      files[path:match "/lib(%a+)[^/]*$"] = path
    end
    local text = process.mptl({ "doctor" }, { env = environment }).out
    for _, name in ipairs { "cudart", "cudnn", "cublasLt", "nvrtc" } do
      assert.is_string(files[name], name)
      assert.is_truthy(text:find(("library    %s\n"):format(files[name]), 1, true), name)
    end
    t = assert(json.decode(process.mptl({ "doctor", "--json" }, { env = { MPTL_CUDA_PLUGIN = "none" } }).out))
    assert.same({}, t.libraries)
  end)

  it("has a name of the form cuda:N", function()
    local result = plan("cuda:1x", "none")
    assert.equal("mptl plan: --device: cuda:1x, accepted are auto, cpu, cuda, cuda:N\n", result.err)
  end)
end)
