-- Convolutions on NVIDIA GPUs, tested without a GPU: cuDNN makes its plans for described devices.
local convolutions = require "support.convolutions"

-- 3 x 3, of 2 images of 8 x 8 pixels.
local function shape_of(channels) return { 2, channels, 8, 8, channels, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 } end

local compiled = {} -- lines, by device

describe("cuDNN", function()
  for _, device in ipairs { "a100", "h100" } do
    for _, kind in ipairs { "f32", "tf32" } do
      it(("has a plan of every pass of all models' convolutions: %s, %s"):format(device, kind), function()
        if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
        for _, line in ipairs(convolutions.plans(device, kind, convolutions.of(convolutions.models(), 128))) do
          assert.equal("ok", line:sub(1, 2), line)
        end
      end)
    end
  end

  -- {device, types, channels}. spec/long has all of ResNet-18 in bf16.
  for _, case in ipairs { { "a100", "bf16", 8 }, { "b200", "e5m2:e4m3", 16 } } do
    local device, kind, c = table.unpack(case)
    it(("compiles engines for narrow operands and binary32 results, all passes: %s, %s"):format(device, kind), function()
      if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
      local lines = convolutions.plans(device, kind, { shape_of(c) })
      for _, line in ipairs(lines) do assert.equal("ok", line:sub(1, 2), line) end
      compiled[device] = lines
    end)
  end

  -- ResNet-18's first convolution reads images of 3 channels, which are padded to 8 in bf16.
  it("compiles engines for any number of channels, which the backend pads: h100, bf16", function()
    if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
    local stem = { 128, 3, 32, 32, 64, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1 }
    local shapes = { stem, { 2, 6, 8, 8, 5, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1 } }
    local expected = { "8x32x32 -> 64", "8x32x32 -> 64", "8x32x32 -> 64", "8x8x8 -> 8", "8x8x8 -> 8", "8x8x8 -> 8" }
    for i, line in ipairs(convolutions.plans("h100", "bf16", shapes)) do
      assert.equal("ok", line:sub(1, 2), line)
      assert.is_truthy(line:find("x" .. expected[i] .. "x", 1, true), line)
    end
  end)

  it("makes slow plans on several threads: the same plans, each once", function()
    if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
    local dir = os.tmpname()
    os.remove(dir)
    local shape = shape_of(8)
    local alone = compiled.a100 or convolutions.plans("a100", "bf16", { shape })
    local options = { environment = "MPTL_CUDA_PLANS=" .. dir, threads = 2 }
    for _, expected in ipairs { 3, 0 } do -- the second time they are read from files
      local lines, made = convolutions.plans("a100", "bf16", { shape, shape }, options)
      assert.equal(expected, made)
      for i, line in ipairs(lines) do assert.equal(alone[(i - 1) % 3 + 1], line) end
    end
    os.execute("rm -r " .. dir)
  end)

  it("is not recorded as without engines when it cannot compile them", function()
    if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
    local libraries = { os.getenv "MPTL_BUILD" .. "/spec/compiler" }
    for _, line in ipairs(convolutions.plans("h100", "bf16", { shape_of(8) }, { libraries = libraries, threads = 2 })) do
      assert.matches("^no .*bf16: NVRTC, with which cuDNN compiles engines, says NVRTC_ERROR_COMPILATION", line)
    end
    for _, line in ipairs(convolutions.plans("h100", "tf32", { shape_of(8) }, { libraries = libraries })) do
      assert.equal("ok", line:sub(1, 2), line)
    end
  end)

  it("makes no plans on threads for passes that are ready or have no engine", function()
    if not convolutions.can_plan() then return pending "no CUDA toolkit and cuDNN here" end
    local shapes = { shape_of(16) }
    local _, made = convolutions.plans("h100", "tf32", shapes, { threads = 2 })
    assert.equal(0, made)
    local lines
    lines, made = convolutions.plans("h100", "e4m3", shapes, { threads = 2 })
    assert.equal(1, made)
    assert.same({ "ok", "no", "no" }, { lines[1]:sub(1, 2), lines[2]:sub(1, 2), lines[3]:sub(1, 2) })
  end)
end)
