-- What the CUDA kernels use of a multiprocessor: two blocks of 256 threads fit with at most 128
-- registers a thread, and a stack is slow memory, for rare cases. cuobjdump reports both for the
-- plug-in; if there is only a compiler, the largest kernels are compiled once more.
local lfs = require "lfs"

local MOST_REGISTERS = 128
local MOST_STACK = 192 -- bytes: for vectors with special values, whose elements are rounded one by one

local build, root = os.getenv "MPTL_BUILD", os.getenv "MPTL_ROOT"
local plugin = build .. "/lib/libmptl_cuda.so"

local function lines_of(command)
  local pipe <close> = assert(io.popen(command .. " 2>&1"))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  return lines
end

local function cached(name)
  for line in io.lines(build .. "/CMakeCache.txt") do
    local value = line:match("^" .. name .. ":[A-Z]+=(.+)$")
    if value then return value end
  end
end

-- cuobjdump of the toolkit that the build uses, or in the path.
local function find_cuobjdump(compiler)
  local beside = compiler:match "^(.*)/[^/]*$" .. "/cuobjdump"
  return lfs.attributes(beside, "mode") and beside or lines_of("command -v cuobjdump")[1]
end

-- Kernels as { name, arch, registers, stack }, from cuobjdump's lines.
local function read_dump(lines)
  local kernels, arch, name = {}, nil, nil
  for _, line in ipairs(lines) do
    arch = line:match "^arch = (%S+)" or arch
    name = line:match "^ *Function (%S+):$" or name
    local registers, stack = line:match "REG:(%d+) STACK:(%d+)"
    if registers then
      kernels[#kernels + 1] = { name = name, arch = arch, registers = tonumber(registers), stack = tonumber(stack) }
    end
  end
  return kernels
end

-- The same from ptxas -v, where a kernel's stack is in the second line after its name.
local function read_compilation(lines)
  local kernels = {}
  for i, line in ipairs(lines) do
    local name, arch = line:match "Compiling entry function '(.-)' for '(.-)'"
    if name then
      kernels[#kernels + 1] = { name = name, arch = arch, stack = tonumber(lines[i + 2]:match "(%d+) bytes stack frame") }
    end
    local registers = line:match "Used (%d+) registers"
    if registers then kernels[#kernels].registers = tonumber(registers) end
  end
  return kernels
end

local function compile(compiler, source, arch)
  local flags = ("-std=c++17 -fmad=false -O3 -I'%s' -I'%s/engine/include' -arch=%s"):format(root, root, arch)
  local command = ("'%s' %s -Xptxas -v -cubin -o /dev/null '%s/kernels/cuda/%s.cu'"):format(compiler, flags, root, source)
  return read_compilation(lines_of(command))
end

-- Kernels of all architectures; or nil and why they are not known.
local function find_kernels()
  local compiler = lfs.attributes(plugin, "mode") and cached "CMAKE_CUDA_COMPILER"
  if not compiler then return nil, "nothing is built for NVIDIA GPUs here" end
  local cuobjdump = find_cuobjdump(compiler)
  if cuobjdump then return read_dump(lines_of(("'%s' --dump-resource-usage '%s'"):format(cuobjdump, plugin))) end
  local kernels = {}
  for _, arch in ipairs { "sm_80", "sm_90" } do
    for _, source in ipairs { "stage", "sums" } do table.move(compile(compiler, source, arch), 1, 99, #kernels + 1, kernels) end
  end
  return kernels
end

describe("a CUDA kernel", function()
  it("lets a multiprocessor hold two blocks and keeps its numbers in registers", function()
    local kernels, missing = find_kernels()
    if not kernels then return pending(missing) end
    local found = {}
    for _, kernel in ipairs(kernels) do
      local is_large = kernel.name:match "stage_kernel" or kernel.name:match "sums_kernel"
      found[kernel.arch] = (found[kernel.arch] or 0) + (is_large and 1 or 0)
      local text = ("%s of %s takes %s registers, %s bytes of stack; at most %d, %d"):format(kernel.name, kernel.arch,
        kernel.registers, kernel.stack, MOST_REGISTERS, MOST_STACK)
      assert(kernel.registers <= MOST_REGISTERS and kernel.stack <= MOST_STACK, text)
    end
    assert(next(found), "no kernels found")
    for arch, n in pairs(found) do assert.equal(12, n, "the largest kernels, of " .. arch) end
  end)
end)
