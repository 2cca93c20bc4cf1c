-- Measures of training from the command line: tensors.jsonl and gradient_error.jsonl, and that they change nothing.
local core = require "mptl.core"
local json = require "mptl.json"
local jsonl = require "mptl.jsonl"
local net = require "support.network"
local precision = require "mptl.precision"
local runs = require "support.runs"
local tensors = require "mptl.measure.tensors"

local all_on = " --quiet --tensors-every 1 --exponents --gradient-error 2"

local function lines_of(path)
  local list = {}
  for line in runs.slurp(path):gmatch "[^\n]+" do list[#list + 1] = assert(json.decode(line)) end
  return list
end

describe("measures of a run", function()
  local dir

  setup(function()
    dir = runs.directory()
    -- with dropout, and a loss scale that becomes too high
    local script = runs.script:gsub("nn.ReLU%(%),", "nn.ReLU(), nn.Dropout(0.2),"):gsub("2 %^ 24", "2 ^ 20")
    runs.spill(dir .. "/tiny.lua", script)
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --out on" .. all_on)))
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --out off --quiet")))
  end)
  teardown(function() runs.remove(dir) end)

  it("do not change the training, and are not written when they are off", function()
    assert.same(runs.reproducible(dir .. "/off"), runs.reproducible(dir .. "/on"))
    assert.is_true(runs.same_files(dir .. "/off/last.safetensors", dir .. "/on/last.safetensors"))
    assert.is_true(runs.same_files(dir .. "/off/best.safetensors", dir .. "/on/best.safetensors"))
    assert.is_false(runs.exists(dir .. "/off/tensors.jsonl"))
    assert.is_false(runs.exists(dir .. "/off/gradient_error.jsonl"))
    assert.is_true(runs.metrics(dir .. "/on")[3].skipped_steps > 0)
    assert.is_true(runs.metrics(dir .. "/on")[1].promotions > 0)
  end)

  for _, policy in ipairs(precision.names) do
    it("do not change a training under " .. policy, function()
      local off, on = dir .. "/off-" .. policy, dir .. "/on-" .. policy
      local name = "train tiny.lua --epochs 1 --policy " .. policy .. (policy == "random" and " --ratio 0.23" or "")
      assert.equal(0, (runs.mptl(dir, name .. " --quiet --out off-" .. policy)))
      assert.equal(0, (runs.mptl(dir, name .. all_on .. " --out on-" .. policy)))
      assert.same(runs.reproducible(off), runs.reproducible(on))
      assert.is_true(runs.same_files(off .. "/last.safetensors", on .. "/last.safetensors"))
      assert.equal(1, #lines_of(on .. "/gradient_error.jsonl"))
    end)
  end

  -- 3 steps an epoch: after 4 in the second epoch's middle, after 6 at its end before the test
  for _, step in ipairs { 1, 4, 6 } do
    it(("continue after an interruption after step %d, and write the same files"):format(step), function()
      local out = "at" .. step
      assert.equal(130, (runs.mptl(dir, "train tiny.lua --out " .. out .. all_on, "KILL=" .. step)))
      assert.equal(0, (runs.mptl(dir, "train tiny.lua --resume --out " .. out .. all_on)))
      for _, file in ipairs { "tensors.jsonl", "gradient_error.jsonl", "last.safetensors" } do
        assert.is_true(runs.same_files(dir .. "/on/" .. file, dir .. "/" .. out .. "/" .. file), file)
      end
    end)
  end

  it("are cut back to the checkpoint when a run continues, even with measures off", function()
    runs.mptl(dir, "train tiny.lua --out cut" .. all_on, "KILL=4")
    local more = { ["tensors.jsonl"] = '{"step":5,"epoch":2}\n{"step":6,', ["gradient_error.jsonl"] = '{"epoch":2}\n' }
    for file, text in pairs(more) do
      local f <close> = assert(io.open(dir .. "/cut/" .. file, "ab"))
      f:write(text)
    end
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --resume --quiet --out cut")))
    local steps = lines_of(dir .. "/cut/tensors.jsonl")
    assert.equal(4, steps[#steps].step)
    assert.equal(1, #lines_of(dir .. "/cut/gradient_error.jsonl"))
  end)

  it("are the same in emulated storage, except for the gradients of skipped steps", function()
    assert.equal(0, (runs.mptl(dir, "train tiny.lua --out emulated --storage emulated --steps-every 1" .. all_on)))
    assert.is_true(runs.same_files(dir .. "/on/gradient_error.jsonl", dir .. "/emulated/gradient_error.jsonl"))
    local applied, compared = {}, 0
    for _, s in ipairs(lines_of(dir .. "/emulated/steps.jsonl")) do applied[s.step] = s.applied end
    local packed, emulated = lines_of(dir .. "/on/tensors.jsonl"), lines_of(dir .. "/emulated/tensors.jsonl")
    assert.equal(#packed, #emulated)
    for i, line in ipairs(packed) do
      if applied[line.step] or line.role == "v" or line.role == "theta" then
        assert.same(line, emulated[i])
        compared = compared + 1
      end
    end
    assert.is_true(compared > #packed / 2)
  end)

  describe("tensors.jsonl", function()
    it("has a line for each tensor in every Nth step, with these fields in this order", function()
      runs.mptl(dir, "train tiny.lua --quiet --tensors-every 2 --out every")
      local names, steps = {}, {}
      for field in runs.slurp(dir .. "/every/tensors.jsonl"):match "[^\n]+":gmatch '"(%l+)":' do names[#names + 1] = field end
      assert.same({
        "step", "epoch", "operator", "role", "format", "elements", "underflow", "overflow", "inf", "nan", "max",
      }, names)
      for _, line in ipairs(lines_of(dir .. "/every/tensors.jsonl")) do
        local key = line.step .. " " .. line.epoch
        if steps[#steps] ~= key then steps[#steps + 1] = key end
      end
      assert.same({ "2 1", "4 2", "6 2", "8 3" }, steps)
    end)

    it("has every tensor except the gradient of the images", function()
      local count, input = 0, {}
      for _, line in ipairs(lines_of(dir .. "/on/tensors.jsonl")) do
        if line.step == 2 then count = count + 1 end
        if line.operator == "input" then input[line.role] = true end
      end
      -- 8 operators, of which 3 have parameters
      assert.equal(2 * 8 - 1 + 2 * 3, count)
      assert.same({ v = true }, input)
    end)

    it("gives the format in which the step rounded, and later the one after promotion", function()
      local log, seen = runs.slurp(dir .. "/on/run.log"), 0
      for step, role, name in log:gmatch "step (%d+): promoted (%a+) of ([%w_.]+) to FP%(6,9,0%)" do
        for _, line in ipairs(lines_of(dir .. "/on/tensors.jsonl")) do
          if line.role == role and line.operator == name then
            local low = line.step <= tonumber(step)
            assert.equal(low and (role == "v" and "FP(3,3,4)" or "FP(4,3,4)") or "FP(6,9,0)", line.format)
            if line.step == tonumber(step) then assert.is_true(line.overflow >= 0.01 * line.elements) end
            seen = seen + 1
          end
        end
      end
      assert.is_true(seen > 0)
    end)

    it("counts every element under an exponent, or as zero, infinity or NaN", function()
      for _, line in ipairs(lines_of(dir .. "/on/tensors.jsonl")) do
        local sum = line.exponents.zeros + line.inf + line.nan
        for _, n in ipairs(line.exponents.counts) do sum = sum + n end
        assert.equal(line.elements, sum)
        if line.max > 0 then
          assert.equal(math.floor(math.log(line.max, 2)), line.exponents.first + #line.exponents.counts - 1)
        end
      end
    end)
  end)

  describe("of a step", function()
    local graph = net.tiny_mixture()

    -- Statistics of a step, and what is reported of it, by operator and role.
    local function step(policy, exponents)
      local plan = precision.plan(policy, graph, 4)
      local program = core.program(core.model(graph), plan.assignment)
      program:count_exponents(exponents)
      program:step(core.tensor({ 4, 8, 8, 3 }, net.numbers(768, 3)), { 0, 1, 2, 3 }, { lr = 0.1, loss_scale = 2 ^ 20 })
      local told = {}
      for _, t in ipairs(tensors.describe(plan.graph, program)) do told[t.operator .. t.role] = t end
      return program:stats(), told, plan
    end

    it("are the statistics of its rounding", function()
      local stats, told, plan = step(precision.uniform_low(), false)
      local overflows = 0
      for _, s in ipairs(stats) do
        local op = plan.graph:operator(s.operator)
        local t = told[op.name .. s.role]
        assert.same({ op[s.role].format, s.elements, s.underflow, s.overflow, s.inf_in, s.nan_in, s.max_abs },
          { t.format, t.elements, t.underflow, t.overflow, t.inf, t.nan, t.max })
        assert.is_nil(t.exponents)
        overflows = overflows + s.overflow
      end
      assert.is_true(overflows > 0)
    end)

    it("are the same with exponents", function()
      local _, without = step(precision.uniform_low(), false)
      local _, with = step(precision.uniform_low(), true)
      for _, t in pairs(with) do t.exponents = nil end
      assert.same(without, with)
    end)

    it("are not counted in binary32, unless exponents are counted", function()
      local _, without = step(precision.fp32(), false)
      local _, with = step(precision.fp32(), true)
      local t = without["conv1theta"]
      assert.same({ "fp32", 8 * 27 + 8 }, { t.format, t.elements })
      assert.is_nil(t.inf or t.nan or t.max)
      assert.matches('"overflow":0,"inf":null,"nan":null,"max":null}$', tensors.line(1, 1, t))
      t = with["conv1theta"]
      assert.same({ 0, 0 }, { t.inf, t.nan })
      assert.is_true(t.max > 0)
    end)

    it("are summarised by the largest share of a tensor for each role", function()
      local list = {
        { role = "v", elements = 10, overflow = 1, underflow = 0 }, { role = "v", elements = 100, overflow = 50, underflow = 1 },
        { role = "dv", elements = 4, overflow = 0, underflow = 3 },
      }
      local scalars = {}
      for _, s in ipairs(tensors.scalars(list)) do scalars[s[1]] = s[2] end
      assert.same({
        ["overflow_largest/v"] = 0.5, ["underflow_largest/v"] = 0.01,
        ["overflow_largest/dv"] = 0, ["underflow_largest/dv"] = 0.75,
      }, scalars)
    end)
  end)

  it("that exclude each other are refused", function()
    local code, _, err = runs.mptl(dir, "train tiny.lua --out bad --exponents")
    assert.same({ 2, "mptl train: --exponents: needs --tensors-every N, the steps for which they are counted\n" }, { code, err })
    code, _, err = runs.mptl(dir, "train tiny.lua --out bad --gradient-error 3")
    assert.same({ 2, "mptl train: --gradient-error 3: there are 2 whole batches of 16 images in the training set, "
      .. "accepted are 1 to that\n" }, { code, err })
    assert.is_false(runs.exists(dir .. "/bad"))
  end)

  it("are fields of a script, too", function()
    runs.spill(dir .. "/fields.lua", runs.slurp(dir .. "/tiny.lua"):gsub("epochs = 3,",
      "epochs = 1, tensors_every = 3, exponents = true, gradient_error = 1,"))
    assert.equal(0, (runs.mptl(dir, "train fields.lua --quiet --out fields")))
    assert.equal(3, lines_of(dir .. "/fields/tensors.jsonl")[1].step)
    assert.equal(16, lines_of(dir .. "/fields/gradient_error.jsonl")[1].images)
  end)
end)

describe("a file of JSON lines", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function cut(text, last)
    runs.spill(path, text)
    local kept = jsonl.keep_until(path, "step", last)
    return kept, runs.slurp(path)
  end

  it("keeps the lines until a step", function()
    local kept, text = cut('{"step":1,"a":2}\n{"step":2}\n{"step":10}\n', 2)
    assert.same({ '{"step":1,"a":2}', '{"step":2}' }, kept)
    assert.equal('{"step":1,"a":2}\n{"step":2}\n', text)
  end)

  it("drops incomplete lines, and lines that are not its own", function()
    local _, text = cut('{"step":1}\nstep\n{"epoch":1}\n{"step":2}', 5)
    assert.equal('{"step":1}\n', text)
  end)

  it("that does not exist has no lines", function()
    os.remove(path)
    assert.same({}, jsonl.keep_until(path, "step", 5))
    assert.is_false(runs.exists(path))
  end)
end)
