-- What the process may use of the machine, with invented control groups: files in a folder that is put before
-- /proc and /sys.
local core = require "mptl.core"
local json = require "mptl.json"
local runs = require "support.runs"
local threads = require "mptl.threads"

local v2_mount = "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
local v1_mounts = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
  .. "32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
  .. "33 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
  .. "34 30 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"

describe("the machine", function()
  local dir, root

  before_each(function()
    dir = runs.directory()
    root = dir .. "/root"
  end)
  after_each(function() runs.remove(dir) end)

  local function write(files)
    for path, text in pairs(files) do
      assert(os.execute(("mkdir -p '%s'"):format((root .. path):match "^(.*)/")))
      runs.spill(root .. path, text)
    end
  end

  local function quota()
    local p = core.processors(root)
    return p.quota, p.quota_file and p.quota_file:sub(#root + 1)
  end

  it("offers all processors when there are no control groups", function()
    local p = core.processors(root)
    assert.is_nil(p.quota)
    assert.equal(p.allowed, p.usable)
    assert.is_true(p.online >= 1 and p.allowed <= p.online)
  end)

  describe("in version 2 of control groups", function()
    it("limits by the group of the process, or by a group that contains it", function()
      write {
        ["/proc/self/cgroup"] = "0::/a.slice/b\n", ["/proc/self/mountinfo"] = v2_mount,
        ["/sys/fs/cgroup/a.slice/b/cpu.max"] = "max 100000\n",
      }
      assert.is_nil(quota())
      write { ["/sys/fs/cgroup/a.slice/cpu.max"] = "250000 100000\n" }
      assert.same({ 2.5, "/sys/fs/cgroup/a.slice/cpu.max" }, { quota() })
      write { ["/sys/fs/cgroup/a.slice/b/cpu.max"] = "50000 100000\n" }
      assert.same({ 0.5, "/sys/fs/cgroup/a.slice/b/cpu.max" }, { quota() })
      write { ["/sys/fs/cgroup/cpu.max"] = "1000 100000\n" }
      assert.same({ 0.01, "/sys/fs/cgroup/cpu.max" }, { quota() })
      assert.equal(1, core.processors(root).usable)
    end)

    it("finds the limit of a container that sees only its part of the tree", function()
      write {
        ["/proc/self/cgroup"] = "0::/docker/0123\n", ["/sys/fs/cgroup/cpu.max"] = "150000 100000\n",
        ["/proc/self/mountinfo"] = v2_mount:gsub(" / ", " /docker/0123 ", 1),
      }
      assert.same({ 1.5, "/sys/fs/cgroup/cpu.max" }, { quota() })
      write { ["/proc/self/cgroup"] = "0::/../elsewhere\n" } -- what the mount does not show
      assert.same({ 1.5, "/sys/fs/cgroup/cpu.max" }, { quota() })
    end)

    it("rounds down to whole processors", function()
      write {
        ["/proc/self/cgroup"] = "0::/\n", ["/proc/self/mountinfo"] = v2_mount,
        ["/sys/fs/cgroup/cpu.max"] = ("%d 100000\n"):format(100000 * core.processors().allowed - 50000),
      }
      assert.equal(math.max(1, core.processors().allowed - 1), core.processors(root).usable)
      write { ["/sys/fs/cgroup/cpu.max"] = "100000000 100000\n" }
      assert.equal(core.processors().allowed, core.processors(root).usable)
    end)

    it("ignores what cannot be read", function()
      for _, text in ipairs { "", "max", "x y\n", "-1 100000\n", "100000 0\n", "nan nan\n" } do
        write { ["/proc/self/cgroup"] = "0::/\n", ["/proc/self/mountinfo"] = v2_mount, ["/sys/fs/cgroup/cpu.max"] = text }
        assert.is_nil(quota())
      end
      write { ["/proc/self/cgroup"] = "garbage\n::\n", ["/proc/self/mountinfo"] = "- - -\n" }
      assert.is_nil(quota())
    end)
  end)

  it("in version 1 limits by quota and period", function()
    write {
      ["/proc/self/cgroup"] = "7:cpuset:/x\n4:cpu,cpuacct:/box/1\n3:memory:/box/1\n0::/\n", ["/proc/self/mountinfo"] = v1_mounts,
      ["/sys/fs/cgroup/cpu,cpuacct/box/1/cpu.cfs_quota_us"] = "-1\n",
      ["/sys/fs/cgroup/cpu,cpuacct/box/1/cpu.cfs_period_us"] = "100000\n",
    }
    assert.is_nil(quota())
    write {
      ["/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us"] = "20000\n", ["/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us"] = "50000\n",
    }
    assert.same({ 0.4, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us" }, { quota() })
  end)

  describe("has memory", function()
    local function memory(kilobytes, swap)
      write { ["/proc/meminfo"] = ("MemTotal: %d kB\nMemFree: 1 kB\nSwapTotal: %d kB\n"):format(kilobytes, swap or 0) }
    end

    -- Memory that is left under a limit, and memory that the process has used, found with the help of a larger limit.
    local function left()
      local bytes, limiter = core.memory_limit(root)
      return bytes, limiter:gsub("^" .. root:gsub("%p", "%%%0"), "")
    end

    it("of the machine, its swap space included", function()
      assert.is_nil(core.memory_limit(root))
      memory(1 << 40)
      local bytes, limiter = left()
      assert.equal("physical memory", limiter)
      assert.is_true(bytes > (1 << 50) - (1 << 33) and bytes < 1 << 50)
      memory(1 << 40, 1 << 39)
      assert.near((1 << 50) + (1 << 49), left() + 0.0, 2.0 ^ 33)
      memory(1)
      assert.equal(0, (left()))
    end)

    it("of its control groups, version 2", function()
      memory(1 << 40, 1 << 30)
      write {
        ["/proc/self/cgroup"] = "0::/a/b\n", ["/proc/self/mountinfo"] = v2_mount, ["/sys/fs/cgroup/a/b/memory.max"] = "max\n",
      }
      assert.equal("physical memory", select(2, left()))
      write { ["/sys/fs/cgroup/a/memory.max"] = ("%d\n"):format(1 << 45), ["/sys/fs/cgroup/a/memory.swap.max"] = "max\n" }
      local bytes, limiter = left()
      assert.equal("/sys/fs/cgroup/a/memory.max", limiter)
      assert.near((1 << 45) + (1 << 40), bytes + 0.0, 2.0 ^ 33)
      write { ["/sys/fs/cgroup/a/memory.swap.max"] = "0\n" }
      assert.near(1 << 45, left() + 0.0, 2.0 ^ 33)
    end)

    it("of its control groups, version 1", function()
      memory(1 << 40, 1 << 30)
      local folder = "/sys/fs/cgroup/memory/box"
      write {
        ["/proc/self/cgroup"] = "3:memory:/box\n", ["/proc/self/mountinfo"] = v1_mounts,
        [folder .. "/memory.limit_in_bytes"] = "9223372036854771712\n",
      }
      assert.equal("physical memory", select(2, left()))
      write { [folder .. "/memory.limit_in_bytes"] = ("%d\n"):format(1 << 45) }
      assert.near((1 << 45) + (1 << 40), left() + 0.0, 2.0 ^ 33)
      write { [folder .. "/memory.memsw.limit_in_bytes"] = ("%d\n"):format(1 << 45) }
      local bytes, limiter = left()
      assert.equal(folder .. "/memory.limit_in_bytes", limiter)
      assert.near(1 << 45, bytes + 0.0, 2.0 ^ 33)
    end)

    it("that a training, a test or a measurement must not exceed", function()
      local train = "train tiny.lua --quiet --policy fp32 --epochs 1 --out "
      memory(4 << 20)
      local before = "MPTL_SYSTEM_ROOT=" .. root
      assert.same({ 0, "", "" }, { runs.mptl(dir, train .. "a", before) })
      memory(1)
      local function refuses(what, arguments)
        local code, _, err = runs.mptl(dir, arguments, before)
        assert.equal(1, code)
        assert.matches("^mptl: memory: " .. what .. " takes [%d.e-]+ GB %(%d+ bytes%), physical memory leaves 0 GB %(0 bytes%); "
          .. "a smaller %-%-batch, %-%-width or %-%-image%-size takes less\n$", err)
      end
      refuses("training", train .. "b")
      assert.is_false(runs.exists(dir .. "/b/config.json"))
      refuses("testing", "eval tiny.lua a/last.safetensors")
      refuses("a training step", "bench step tiny.lua --steps 1")
    end)

    it("of its address space", function()
      if (os.getenv "MPTL_SANITIZE" or "") ~= "" then return end -- their shadow memory takes all of it
      runs.spill(dir .. "/large.lua", (runs.script:gsub("256 %* cfg", "65536 * 4 * cfg")))
      local code, _, err = runs.mptl(dir, "train large.lua --policy fp32 --width 16 --batch 40 --image-size 1024 --out a",
        "ulimit -v 2000000;")
      assert.equal(1, code)
      assert.matches("^mptl: memory: training takes [%d.]+ GB %(%d+ bytes%), RLIMIT_AS leaves [%d.]+ GB %(%d+ bytes%); ", err)
    end)
  end)

  describe("has threads by default", function()
    local function half_a_processor()
      write {
        ["/proc/self/cgroup"] = "0::/\n", ["/proc/self/mountinfo"] = v2_mount, ["/sys/fs/cgroup/cpu.max"] = "50000 100000\n",
      }
      return "env -u OMP_NUM_THREADS MPTL_SYSTEM_ROOT=" .. root
    end

    it("as many as the CPU quota allows, and doctor says so", function()
      local before = half_a_processor()
      local _, out = runs.mptl(dir, "doctor", before)
      assert.matches("\nthreads    1, by the CPU quota of 0.5 processors (" .. root .. "/sys/fs/cgroup/cpu.max)\n", out, 1, true)
      _, out = runs.mptl(dir, "doctor --json", before)
      local t = json.decode(out)
      assert.same({ 1, 0.5, 1, "quota" }, { t.threads, t.processors.quota, t.processors.usable, t.processors.decides })
      _, out = runs.mptl(dir, "doctor", before .. " OMP_NUM_THREADS=2")
      assert.matches("\nthreads    %d, by OMP_NUM_THREADS; 1 can run at once, by the CPU quota of 0.5 processors", out)
    end)

    it("as many as its affinity allows", function()
      local _, out = runs.mptl(dir, "doctor --json", "env -u OMP_NUM_THREADS taskset -c 0")
      local t = json.decode(out)
      assert.same({ 1, 1, 1 }, { t.threads, t.processors.allowed, t.processors.usable })
      assert.equal(t.processors.online > 1 and "affinity" or "processors", t.processors.decides)
    end)

    it("and never exceeds OpenMP's limit, however many are asked for", function()
      local script = 'local c = require "mptl.core" local n = c.threads() c.set_threads(5) print(n, c.threads())'
      runs.spill(dir .. "/count.lua", script)
      local cases = { { "OMP_NUM_THREADS=4 OMP_THREAD_LIMIT=2", "2\t2\n" }, { "OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=3", "1\t3\n" } }
      for _, case in ipairs(cases) do
        local pipe <close> = io.popen(("cd %s && %s '%s' count.lua"):format(dir, case[1], os.getenv "MPTL_LUA"))
        assert.equal(case[2], pipe:read "a")
      end
      -- else oneDNN would wait for threads that do not exist
      assert.equal(0, (runs.mptl(dir, "train tiny.lua --epochs 1 --quiet --policy fp32 --out l --threads 2",
        "OMP_THREAD_LIMIT=1 timeout 60")))
    end)

    it("and says when --threads or --jobs asks for more", function()
      local before = half_a_processor()
      local function said(option)
        return ("mptl: %s: more threads than the 1 that can run at once, by the CPU quota of 0.5 processors (%s); this is slower"
          .. " than fewer\n"):format(option, root .. "/sys/fs/cgroup/cpu.max")
      end
      local code, _, err = runs.mptl(dir, "train tiny.lua --epochs 1 --quiet --policy fp32 --out a --threads 2", before)
      assert.same({ 0, said "--threads 2" }, { code, err })
      code, _, err = runs.mptl(dir, "train tiny.lua --epochs 1 --quiet --policy fp32 --out b --threads 1", before)
      assert.same({ 0, "" }, { code, err })
      runs.spill(dir .. "/s.lua", 'return { common = { epochs = 1 }, runs = { { script = "tiny", policy = "fp32" } } }')
      code, _, err = runs.mptl(dir, "sweep s.lua --out c --jobs 3", before)
      assert.same({ 0, said "--jobs 3, of 1 threads each" }, { code, err })
    end)
  end)

  it("says what limits threads", function()
    local quota_text = { online = 8, allowed = 4, quota = 1.5, quota_file = "F", usable = 1 }
    assert.same({ "quota", "the CPU quota of 1.5 processors (F)" }, { threads.limiter(quota_text) })
    assert.same({ "affinity", "affinity to 4 of 8 processors" }, { threads.limiter { online = 8, allowed = 4, usable = 4 } })
    assert.same({ "affinity", "affinity to 4 of 8 processors" },
      { threads.limiter { online = 8, allowed = 4, quota = 6, quota_file = "F", usable = 4 } })
    assert.same({ "processors", "8 processors" }, { threads.limiter { online = 8, allowed = 8, usable = 8 } })
  end)
end)
