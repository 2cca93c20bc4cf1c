-- A GPU, or the CUDA backend's build for the host, compared with the CPU: operators, training, checkpoints.
local bench_step = require "mptl.cmd.bench_step"
local core = require "mptl.core"
local net = require "support.network"
local precision = require "mptl.precision"
local process = require "support.process"
local runs = require "support.runs"
local script = require "mptl.script"
local storage = require "support.storage"

local cuda = core.device "cuda"

-- Multiples of 1/8 up to 15/8, of which the sums of products in these specs are exact in binary32 in any order.
local function dyadic(n, seed)
  local values = net.numbers(n, seed)
  for i, x in ipairs(values) do values[i] = (x * 15.9999 // 1) / 8 end
  return values
end

local function filled(t, values)
  return t:copy(core.tensor(t:size(), values))
end

local fitted = { v = "FP(4,3,auto)", dv = "FP(5,2,auto)", theta = "FP(3,4,auto)", dtheta = "FP(4,7,auto)" }

--- One operator's output, gradients and statistics, as text by name; the types that its passes are multiplied in.
-- options.formats: of all tensors, by role; binary32 if nil. build(graph, input) returns the operator's value.
local function run(device, build, options)
  local n, input = 4, options.input or { 6, 6, 6 }
  local g = core.graph()
  local y = build(g, g:input(input))
  local operator = #g:operators() - 1
  local shape = g:shape(y)
  local set_head, labels = net.cotangent_head(g, y, n, dyadic(n * net.product(shape), 7))
  local model = core.model(g, { seed = 3, device = device })
  set_head(model)
  for i, p in ipairs(g:parameters()) do
    if p.name:match "^op%." and not p.buffer then filled(model:tensor(p.name), dyadic(p.numel, i)) end
  end
  local assignment = core.assignment(g, n, net.fp32)
  for _, role in ipairs { "v", "dv", "theta", "dtheta" } do
    for op = 0, operator do
      if options.formats and assignment:get(op, role) then assignment:set(op, role, options.formats[role]) end
    end
  end
  if options.coarser then assignment:set(0, "dv", "FP(5,1,0)") end -- or what a slice passes on is on its grid already
  local program = core.program(model, assignment, {
    train = options.train ~= false, input_gradient = options.train ~= false, keep_all = true, rounding = options.rounding,
    seed = 5, storage = options.storage, compute = options.compute,
  })
  local values = dyadic(n * net.product(input), 9)
  program:forward(core.tensor({ #values }, values), labels, 11)
  local results = { y = program:read(operator):totable() }
  if options.train ~= false then
    program:backward(n)
    results.dx = program:read(0, "gradient"):totable()
  end
  for _, p in ipairs(g:parameters()) do
    if p.name:match "^op%." and p.buffer then results[p.name] = model:tensor(p.name):totable() end
    if p.name:match "^op%." and not p.buffer and options.train ~= false then
      results["d" .. p.name] = model:grad(p.name):totable()
    end
  end
  local stats = {}
  for _, s in ipairs(program:stats()) do
    if s.operator <= operator then
      stats[#stats + 1] = ("%d %s %d %d %d %a %s"):format(s.operator, s.role, s.elements, s.underflow, s.overflow, s.max_abs,
        table.concat(s.shifts or {}, ","))
    end
  end
  local types = {}
  for _, way in ipairs(program:products()) do
    if way.operator == operator then types[way.pass] = way.type end
  end
  return results, table.concat(stats, "\n"), types
end

-- Compares element by element, bit for bit.
local function assert_equal(want, got, what)
  for i = 1, #want do
    if ("%a"):format(want[i]) ~= ("%a"):format(got[i]) then
      error(("%s: element %d is %a, expected %a"):format(what, i, got[i], want[i]), 2)
    end
  end
end

local function compare(build, options, tolerance)
  local want, want_stats = run("cpu", build, options)
  local got, got_stats = run(cuda, build, options)
  for name, values in pairs(want) do
    if tolerance == 0 then assert_equal(values, got[name], name) else net.assert_close(values, got[name], tolerance, name) end
  end
  if tolerance == 0 then assert.equal(want_stats, got_stats) end
end

local function unary(kind, attributes)
  return function(g, x) return g:add(kind, "op", { x }, attributes) end
end

-- How far an operator's results may differ, relative to the largest: 0 unless sums have another order
-- or something is approximated.
local operators = {
  { "relu", 0, unary "relu" },
  { "relu6", 0, unary "relu6" },
  { "dropout", 0, unary("dropout", { p = 0.3 }) },
  { "add", 0, function(g, x) return g:add("add", "op", { x, g:add("relu", "relu", { x }) }) end },
  { "mul", 0, function(g, x) return g:add("mul", "op", { x, g:add("relu", "relu", { x }) }) end },
  { "maxpool", 0, unary("maxpool", { kernel = 3, stride = 2, padding = 1 }) },
  { "avgpool", 0, unary("avgpool", { kernel = 2, stride = 2 }) },
  { "mean", 0, unary "mean" },
  { "slice", 0, unary("slice", { first = 1, count = 4 }) },
  { "concat, shuffled", 0, function(g, x)
    return g:add("concat", "op", { x, g:add("relu", "relu", { x }) }, { shuffle = 3 })
  end },
  { "maxpool of many channels", 0, unary("maxpool", { kernel = { 2, 3 }, stride = { 1, 2 }, padding = 1 }), { 24, 5, 4 } },
  { "avgpool of many channels", 0, unary("avgpool", { kernel = 3, padding = 1, count_include_pad = false }), { 19, 4, 4 } },
  { "mean of many channels", 0, unary "mean", { 16, 3, 3 } },
  { "slice of many channels", 0, unary("slice", { first = 8, count = 16 }), { 32, 2, 3 } },
  { "slice in the middle of many channels", 0, unary("slice", { first = 7, count = 18 }), { 32, 2, 3 } },
  { "slices that share a value", 0, function(g, x)
    local a, b = g:add("slice", "a", { x }, { first = 0, count = 8 }), g:add("slice", "b", { x }, { first = 8, count = 16 })
    return g:add("concat", "op", { b, g:add("relu", "relu", { a }) })
  end, { 24, 2, 3 } },
  { "concat of many channels", 0, function(g, x)
    return g:add("concat", "op", { x, g:add("relu", "relu", { x }) })
  end, { 16, 3, 2 } },
  { "concat of many channels with shuffle", 0, function(g, x)
    return g:add("concat", "op", { x, g:add("relu", "relu", { x }) }, { shuffle = 2 })
  end, { 20, 3, 2 } },
  { "conv2d", 0, unary("conv2d", { out = 5, kernel = 3, padding = 1 }) },
  { "conv2d without bias, with strides", 0, unary("conv2d", { out = 4, kernel = { 3, 2 }, stride = 2, bias = false }) },
  { "conv2d of 3 channels", 0, unary("conv2d", { out = 8, kernel = 3, padding = 1 }), { 3, 6, 5 } },
  { "conv2d of odd numbers of channels", 0, unary("conv2d", { out = 7, kernel = 3, stride = 2 }), { 5, 6, 6 } },
  { "conv2d, dilated", 0, unary("conv2d", { out = 4, kernel = 2, dilation = 2 }) },
  { "conv2d, grouped", 0, unary("conv2d", { out = 9, kernel = 3, groups = 3 }) },
  { "conv2d, depthwise", 0, unary("conv2d", { out = 6, kernel = 3, groups = 6, padding = 1 }) },
  { "linear over images", 0, function(g, x) return g:add("linear", "op", { g:flatten(x) }, { out = 7 }) end },
  { "layernorm", 0, unary "layernorm" },
  { "layernorm without bias, another eps", 0, unary("layernorm", { eps = 0.5, bias = false }) },
  { "layernorm of many channels", 0, unary "layernorm", { 72, 3, 3 } },
  { "layernorm of flat values", 0, unary "layernorm", { 37 } },
  { "layernorm of many features", 0, unary "layernorm", { 1100 } },
  { "layernorm of many rows", 0, unary "layernorm", { 3, 30, 30 } },
  { "sigmoid", 2e-7, unary "sigmoid" },
  { "gelu", 2e-7, unary "gelu" },
  { "gelu_tanh", 2e-7, unary "gelu_tanh" },
  { "batchnorm2d", 2e-6, unary "batchnorm2d" },
  { "log_softmax", 1e-6, function(g, x) return g:add("log_softmax", "op", { g:flatten(x) }) end },
}

describe("operator on the GPU", function()
  for _, case in ipairs(operators) do
    local name, tolerance, build, input = table.unpack(case)
    it("gives the CPU's numbers: " .. name, function()
      compare(build, { input = input }, tolerance)
      compare(build, { input = input, train = false }, tolerance)
    end)
    if tolerance == 0 then
      it("gives the CPU's numbers in low precision: " .. name, function()
        compare(build, { input = input, formats = net.hfp8.low }, 0)
        for _, coarser in ipairs { false, true } do
          compare(build,
            { input = input, formats = net.hfp8.low, rounding = "stochastic", storage = "emulated", coarser = coarser }, 0)
        end
      end)

      it("gives the CPU's numbers and shifts in FP(e,m,auto): " .. name, function()
        compare(build, { input = input, formats = fitted }, 0)
        compare(build, { input = input, formats = fitted, rounding = "stochastic", storage = "emulated" }, 0)
      end)
    end
  end
end)

describe("a convolution on the GPU", function()
  for _, channels in ipairs { { 3, 8 }, { 1, 2 }, { 6, 5 }, { 9, 7 } } do
    local c, k = table.unpack(channels)
    it(("is multiplied in bf16 with any number of channels, and gives what binary32 gives: %d, %d"):format(c, k), function()
      local build = unary("conv2d", { out = k, kernel = 3, padding = 1 })
      for _, kind in ipairs { "packed", "emulated" } do
        local options = { input = { c, 6, 6 }, formats = net.hfp8.low, storage = kind }
        local got, got_stats, types = run(cuda, build, options)
        options.compute = "f32"
        local want, want_stats = run(cuda, build, options)
        assert.same({ forward = "bf16", ["backward data"] = "bf16", ["backward weights"] = "bf16" }, types)
        for name, values in pairs(want) do assert_equal(values, got[name], name) end
        assert.equal(want_stats, got_stats)
      end
    end)
  end
end)

--- Steps of training; losses, the last statistics' numbers of elements, parameters.
local function train(device, graph, policy, steps, batch)
  local model = core.model(graph, { seed = 3, device = device })
  local plan = precision.plan(type(policy) == "string" and precision.named(policy) or policy, graph, batch)
  local program = core.program(model, plan.assignment, { seed = 1 })
  local images, labels = storage.images_of(batch, { 3, 8, 8 })
  local losses, elements, parameters = {}, {}, {}
  for step = 1, steps do
    local result = program:step(images, labels, { step = step, lr = 0.05, momentum = 0.9, weight_decay = 5e-4, loss_scale = 256 })
    assert(result.applied)
    losses[step] = result.loss
  end
  for _, s in ipairs(program:stats()) do elements[#elements + 1] = ("%d %s %d"):format(s.operator, s.role, s.elements) end
  for _, name in ipairs(model:names()) do parameters[name] = model:tensor(name):totable() end
  return losses, table.concat(elements, "\n"), parameters
end

describe("training on the GPU", function()
  for _, network in ipairs { "tiny_resnet", "tiny_mixture", "tiny_layernorms" } do
    it("is the CPU's in binary32, except for the order of sums: " .. network, function()
      local graph = net[network]()
      local want, want_elements, want_parameters = train("cpu", graph, "fp32", 8, 7)
      local got, got_elements, got_parameters = train(cuda, graph, "fp32", 8, 7)
      net.assert_close(want, got, 1e-4, "loss")
      assert.equal(want_elements, got_elements)
      for name, values in pairs(want_parameters) do net.assert_close(values, got_parameters[name], 2e-3, name) end
    end)

    it("is the CPU's in FP(8,20,auto), next to binary32: " .. network, function()
      local graph, policy = net[network](), precision.uniform "FP(8,20,auto)"
      local want, want_elements, want_parameters = train("cpu", graph, policy, 4, 7)
      local got, got_elements, got_parameters = train(cuda, graph, policy, 4, 7)
      net.assert_close(want, got, 1e-4, "loss")
      assert.equal(want_elements, got_elements)
      for name, values in pairs(want_parameters) do net.assert_close(values, got_parameters[name], 2e-3, name) end
    end)

    it("has the CPU's first loss in low precision, and stays near it: " .. network, function()
      local graph = net[network]()
      local want, want_elements = train("cpu", graph, "demotion", 8, 7)
      local got, got_elements = train(cuda, graph, "demotion", 8, 7)
      assert.near(want[1], got[1], 0.02 * want[1])
      for step = 2, 8 do assert.near(want[step], got[step], 0.25 * want[step]) end
      assert.equal(want_elements, got_elements)
    end)
  end

  it("is the same when it is repeated", function()
    local graph = net.tiny_mixture()
    local losses, _, parameters = train(cuda, graph, "uniform_low", 5, 6)
    local again, _, parameters_again = train(cuda, graph, "uniform_low", 5, 6)
    assert.same(losses, again)
    assert.same(parameters, parameters_again)
  end)

  it("runs stages of any number of operators", function()
    local g = core.graph()
    local x = g:add("conv2d", "conv", { g:input { 3, 8, 8 } }, { out = 4, kernel = 1 })
    for i = 1, 21 do x = g:add("dropout", "dropout" .. i, { x }, { p = 0.01 }) end
    g:add("nll_loss", "loss", { g:add("linear", "linear", { g:flatten(x) }, { out = 5 }) })
    local want, want_elements = train("cpu", g, "fp32", 1, 3)
    local got, got_elements = train(cuda, g, "fp32", 1, 3)
    net.assert_close(want, got, 1e-5, "loss")
    assert.equal(want_elements, got_elements)
  end)

  it("refuses a label out of range, and a batch norm of one value", function()
    local g = core.graph()
    local x = g:add("batchnorm2d", "bn", { g:input { 5, 1, 1 } })
    g:add("nll_loss", "loss", { g:flatten(x) })
    local model = core.model(g, { device = cuda })
    local program = core.program(model, core.assignment(g, 2, net.fp32))
    local images = core.tensor({ 10 }, { 1, 2, 3, 4, 5, 5, 4, 3, 2, 1 })
    for _ = 1, 2 do
      assert.has_error(function() program:forward(images, { 0, 5 }) end,
        "loss (nll_loss): label of sample 1: 5, accepted are 0 to 4")
      images:fill(0) -- the device no longer needs it, which its build for the host checks
    end
    assert.has_error(function() core.program(model, core.assignment(g, 1, net.fp32)) end,
      "bn (batchnorm2d): batch 1: it normalises one value per channel, accepted are batches of at least 2")
  end)
end)

describe("a launch that fails", function()
  it("is named, with its operator, where the device is the host's build", function()
    if core.cuda().devices[1] ~= "no GPU: the kernels on the host, for tests" then return end
    local function said(launch)
      local bench = { "bench", "step", "resnet18_cifar", "--device", "cuda", "--width", "0.1", "--batch", "2", "--steps", "1" }
      return process.mptl(bench, { env = { MPTL_CUDA_HOST_FAILS = launch } }).err
    end
    assert.matches("mptl: CUDA, starting mptl_cuda_update(id, list->params, ", said "mptl_cuda_update", 1, true)
    assert.matches(": error 719\n", said "mptl_cuda_update", 1, true)
    assert.matches("^mptl: input %(input%): CUDA, starting .*mptl_cuda_stage_forward", said "mptl_cuda_stage_forward")
    assert.equal("", said "mptl_cuda_nothing")
  end)
end)

describe("a model on the GPU", function()
  it("starts with the CPU's parameters", function()
    local graph = net.tiny_mixture()
    local here, there = core.model(graph, { seed = 8, device = "cpu" }), core.model(graph, { seed = 8, device = cuda })
    assert.equal("cpu", here:device())
    assert.equal(cuda, there:device())
    for _, name in ipairs(here:names()) do assert.equal(here:tensor(name):tostring(), there:tensor(name):tostring()) end
  end)

  it("is read and written through copies", function()
    local graph = net.tiny_resnet()
    local t = core.model(graph, { device = cuda }):tensor "linear.bias"
    t:fill(2)
    t:set(3, 0.5)
    assert.same({ 2, 2, 0.5, 2, 2 }, t:totable())
    assert.equal(0.5, t:get(3))
    assert.is_true(t:finite())
    t:fromstring(string.pack("<fffff", 1, 2, 3, 4, 1 / 0))
    assert.is_false(t:finite())
    assert.same({ 1, 2, 3, 4, 1 / 0 }, core.tensor({ 5 }):copy(t):totable())
    assert.has_error(function() core.round(t, "FP(4,3,4)") end,
      "bad argument #1 to 'round' (the tensor is in the memory of a device: copy it to another first)")
  end)

  it("counts its memory", function()
    local graph = net.tiny_resnet()
    collectgarbage()
    collectgarbage()
    local before = core.memory()
    local model = core.model(graph, { device = cuda })
    local after = core.memory()
    local bytes = 0
    for _, name in ipairs(model:names()) do bytes = bytes + 4 * model:tensor(name):numel() end
    assert.is_true(after - before >= bytes)
  end)

  it("reads images from memory of the host that its device can read, which is not counted", function()
    local numel = 1 << 20
    local before = core.memory()
    local images = core.tensor({ numel }, nil, cuda)
    assert.is_true(core.memory() - before < 4 * numel)
    assert.equal(0, images:get(numel))
    images:set(numel, 3)
    assert.same({ 1, 2 }, core.tensor({ 2 }, { 1, 2 }, cuda):totable())
    assert.equal(3, core.tensor({ numel }):copy(images):get(numel))
    assert.has_error(function() core.tensor({ 1 }, nil, "tpu") end, "device tpu: accepted are auto, cpu, cuda, cuda:N")
  end)

  it("is measured by mptl bench step on such images", function()
    local new, used = core.tensor, nil
    finally(function() core.tensor = new end)
    function core.tensor(dims, values, device)
      used = device
      return new(dims, values, device)
    end
    local cfg = script.configure("resnet18_cifar", { width = 0.1, batch = 2, device = "cuda" })
    local result = bench_step.benchmark(cfg, 1)
    assert.equal(cuda, used)
    assert.is_true(result.ms_median > 0)
  end)

  it("accepts programs with its device's workspace only", function()
    local graph = net.tiny_resnet()
    assert.has_error(function()
      core.program(core.model(graph, { device = cuda }), core.assignment(graph, 2, net.fp32),
      { workspace = core.workspace "cpu" })
    end, "program: the model is on " .. cuda .. ", its workspace on cpu")
  end)
end)

describe("a profile on the GPU", function()
  it("has a rate for every type that products are computed in, and for copying", function()
    local memory = core.memory()
    local machine = core.peaks { device = cuda, seconds = 0.001 }
    assert.equal(memory, (core.memory()))
    for _, name in ipairs { "copy_gb_per_s", "f32_gflop_per_s", "tf32_gflop_per_s", "bf16_gflop_per_s", "fp8_gflop_per_s" } do
      assert.is_true(machine[name] == nil and name:match "^fp8" or machine[name] > 0, name)
    end
  end)
end)

describe("mptl train --device cuda", function()
  local dir

  setup(function() dir = runs.directory() end)
  teardown(function() runs.remove(dir) end)

  local function mptl(arguments, before)
    local code, _, err = runs.mptl(dir, arguments, before)
    return code, err
  end

  it("trains, is interrupted, and continues bit for bit", function()
    assert.equal(0, (mptl "train tiny.lua --quiet --device cuda --out whole"))
    assert.equal(130, (mptl("train tiny.lua --quiet --device cuda --out parts", "KILL=4")))
    assert.equal(0, (mptl "train tiny.lua --quiet --device cuda --out parts --resume"))
    assert.is_true(runs.same_files(dir .. "/whole/last.safetensors", dir .. "/parts/last.safetensors"))
    assert.same(runs.reproducible(dir .. "/whole"), runs.reproducible(dir .. "/parts"))
  end)

  it("continues what the CPU began, and the CPU what it began", function()
    runs.spill(dir .. "/fp32.lua", (runs.script:gsub("formats = {.-} },", 'formats = { high = "fp32", low = "fp32" },')))
    assert.equal(0, (mptl "train fp32.lua --quiet --device cpu --out cpu"))
    local want = runs.metrics(dir .. "/cpu")
    for first, second in pairs { cpu = "cuda", cuda = "cpu" } do
      local arguments = ("train fp32.lua --quiet --out %s-first --device "):format(first)
      assert.equal(130, (mptl(arguments .. first, "KILL=4")))
      assert.equal(0, (mptl(arguments .. second .. " --resume")))
      local got = runs.metrics(dir .. "/" .. first .. "-first")
      assert.equal(3, #got)
      for i = 1, 3 do
        assert.near(want[i].train_loss, got[i].train_loss, 1e-3 * want[i].train_loss)
        assert.near(want[i].test_loss, got[i].test_loss, 1e-3 * want[i].test_loss)
      end
    end
  end)

  it("evaluates a checkpoint of the other device", function()
    assert.equal(0, (mptl "train tiny.lua --quiet --policy fp32 --epochs 1 --device cuda --out once"))
    local results = {}
    for _, device in ipairs { "cpu", "cuda" } do
      local code, out = runs.mptl(dir, "eval tiny.lua once/last.safetensors --json --policy fp32 --device " .. device)
      assert.equal(0, code)
      results[device] = tonumber(out:match '"test_loss": *([%d.]+)')
    end
    assert.near(results.cpu, results.cuda, 1e-5 * results.cpu)
  end)

  it("is used by mptl plan to say how each pass is multiplied", function()
    local code, out = runs.mptl(dir, "plan tiny.lua --device cuda --policy fp32")
    assert.equal(0, code)
    assert.matches("\noperator +product +type +workspace MB +engine\n", out)
    local conv = out:match "\n%s*1 +(%S+) +conv2d"
    assert.matches("\n" .. conv .. " +forward +f32 +[%d.]+ +%S", out)
    assert.is_nil(out:find(conv .. " +backward data")) -- images have no gradient
    assert.matches("\n" .. conv .. " +backward weights +f32 +[%d.]+ +%S", out)
    code, out = runs.mptl(dir, "plan tiny.lua --device cuda --policy fp32 --json")
    assert.equal(0, code)
    assert.matches('"products":%s*%[%s*{%s*"pass":%s*"forward",%s*"type":%s*"f32",%s*"engine":', out)
  end)

  it("refuses a GPU beyond the last one", function()
    local count = #core.cuda().devices
    local code, err = mptl(("train tiny.lua --out none --device cuda:%d"):format(count))
    assert.equal(2, code)
    assert.matches("^mptl train: %-%-device cuda:%d+: there [^\n]+, accepted are cuda:0 to cuda:%d+\n$", err)
  end)
end)
