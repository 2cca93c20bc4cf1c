local process = require "support.process"
local configuration = require "mptl.configuration"
local script = require "mptl.script"

-- The configuration of a script of this text.
local function configure(text, args)
  return script.configure(process.file("net.lua", text), args)
end

local head = "local mptl = require 'mptl'; local nn = mptl.nn; "
local net = "nn.Sequential { nn.Flatten(), nn.Linear { 3072, 10 } }"
local plain = head .. "return { model = " .. net .. " }"

-- The error of planning a script of this text from the command line.
local function plan_error(text, ...)
  local path = process.file("net.lua", text)
  local result = process.mptl { "plan", path, ... }
  assert.equal("", result.out)
  assert.equal(1, select(2, result.err:gsub("\n", "")))
  return result.err:gsub(path, "net.lua", 1), result.status
end

describe("script.configure()", function()
  it("has defaults for what a script leaves out", function()
    local cfg = configure(plain)
    assert.same({ "net", "cifar10", 128, 200, 1, 10, "fp32" },
      { cfg.name, cfg.dataset, cfg.batch, cfg.epochs, cfg.seed, cfg.classes, cfg.policy })
    assert.same({ 3, 32, 32 }, { table.unpack(cfg.input) })
    assert.equal(0.1, cfg.optimizer.lr)
  end)

  it("uses the script's fields, which the command line overrides", function()
    local text = head .. "return { batch = 64, epochs = 3, dataset = 'cifar100', seed = 7, model = " .. net
      .. ", optimizer = mptl.optim.sgd { lr = 0.4 }, precision = mptl.precision.demotion { ratio = 0.25, threshold = 0.02 } }"
    local cfg = configure(text)
    assert.same({ 64, 3, 100, 7, 0.4, "demotion", 0.25, 0.02 },
      { cfg.batch, cfg.epochs, cfg.classes, cfg.seed, cfg.lr, cfg.policy, cfg.ratio, cfg.threshold })
    cfg = configure(text, { batch = 32, lr = 0.05, ratio = 0.75, threshold = false, dataset = "cifar10" })
    assert.same({ 32, 10, 0.05, 0.05, 0.75 }, { cfg.batch, cfg.classes, cfg.lr, cfg.optimizer.lr, cfg.precision.ratio })
    assert.is_nil(cfg.precision.threshold)
  end)

  it("keeps the script's policy options for another policy that has them", function()
    local text = head .. "return { model = " .. net .. ", precision = mptl.precision.demotion { ratio = 0.25, formats = 'fp8' } }"
    local cfg = configure(text, { policy = "increasing" })
    assert.same({ "increasing", 0.25, "fp8" }, { cfg.policy, cfg.ratio, cfg.formats })
    cfg = configure(text, { policy = "operator" })
    assert.same({ "operator", "fp8", "bf16" }, { cfg.policy, cfg.formats, cfg.precision.candidates.high.v })
    assert.equal("fp32", configure(text, { policy = "fp32", ratio = 0.5, formats = "hfp8" }).formats)
  end)

  it("seeds a random policy with the run's seed", function()
    assert.equal(5, configure(plain, { policy = "random", seed = 5 }).precision.options.seed)
  end)

  it("gives the synthetic set the shape of the script's own", function()
    local cfg = configure(head .. "return { dataset = 'cifar100', model = " .. net .. " }", { quick = true })
    assert.same({ "synthetic", 100 }, { cfg.dataset, cfg.classes })
  end)

  it("makes large batches small for --quick, and the learning rate with them, unless they are given", function()
    local text = head .. "return { batch = 1024, optimizer = mptl.optim.sgd { lr = 0.5 }, model = " .. net .. " }"
    for _, case in ipairs {
      { { quick = true }, 128, 0.0625 }, { { quick = true, lr = 0.5 }, 128, 0.5 }, { { quick = true, batch = 512 }, 512, 0.5 },
      { {}, 1024, 0.5 },
    } do
      local cfg = configure(text, case[1])
      assert.same({ case[2], case[3], case[3] }, { cfg.batch, cfg.lr, cfg.optimizer.lr })
    end
    assert.equal(128, configure(plain, { quick = true }).batch)
  end)

  it("loads policies from files", function()
    local policy = process.file("mine.lua", "local p = require('mptl').precision\nreturn p.policy(function(graph, C, options)\n"
      .. "  graph:group(options.k):demote()\nend, { threshold = 0.5 })")
    local cfg = configure(plain, { policy = policy, k = 1 })
    assert.same({ "mine", 0.5 }, { cfg.policy, cfg.threshold })
    assert.same({ 1 }, script.plan(cfg, script.record(cfg)).order)
  end)

  it("gives config.json every option", function()
    local json = require "mptl.json"
    local text = json.encode(configuration.settings(configure(plain, { batch = 32, policy = "demotion" })))
    local settings = assert(json.decode(text))
    assert.same({ "net", 32, "demotion", 0.5, "sgd", "FP(4,3,4)" }, {
      settings.script, settings.batch, settings.policy, settings.ratio, settings.optimizer.name, settings.candidates.low.v,
    })
    assert.matches('^{"script":"net","path":', text)
  end)
end)

describe("script.find()", function()
  it("accepts paths and names of the installed models, with or without .lua", function()
    local installed = os.getenv "MPTL_ROOT" .. "/models/resnet18_cifar.lua"
    assert.equal(installed, script.find "resnet18_cifar.lua")
    assert.equal(installed, script.find "resnet18_cifar")
    assert.equal(installed, script.find(installed))
  end)

  it("lists what exists", function()
    local result = process.mptl { "plan", "resnet18_cifra" }
    assert.equal(2, result.status)
    assert.matches('^mptl plan: script resnet18_cifra: no such file %(did you mean "resnet18_cifar"%?%); accepted are a path or '
      .. "one of .*resnet18_cifar", result.err)
  end)
end)

describe("a script's mistakes", function()
  local function expect(message, text, ...)
    local err, status = plan_error(text, ...)
    assert.equal("mptl: " .. message .. "\n", err)
    assert.equal(1, status)
  end

  it("are reported with file and line", function()
    expect("net.lua:2: boom", "\nerror 'boom'")
    expect("net.lua:1: unexpected symbol near '}'", "return }")
    expect("net.lua:2: attempt to call a nil value (field 'Conv9d')",
      "local nn = require('mptl').nn\nreturn { model = nn.Conv9d{} }")
    expect("net.lua:3: group 77: the graph has groups 0 to 2",
      head .. "return { model = nn.Sequential { nn.Conv2d { 3, 8, kernel = 32 }, nn.Flatten(), nn.Linear { 8, 10 } },\n"
      .. "  precision = mptl.precision.policy(function(graph)\n    graph:group(77):demote() end) }")
  end)

  it("name the field and what is accepted", function()
    expect("net.lua: returned nothing, must return a table { model = ..., dataset = ..., ... }", "")
    expect("net.lua: returned 3, must return a table { model = ..., dataset = ..., ... }", "return 3")
    expect("net.lua: model: missing, must be a function (cfg) that returns a module, a function (x, cfg), or a module",
      "return {}")
    expect("net.lua: batch: 1.5, accepted are whole numbers from 1 to 65536",
      head .. "return { model = " .. net .. ", batch = 1.5 }")
    expect("net.lua: loss: string, must be a function such as mptl.nn.cross_entropy",
      head .. "return { model = " .. net .. ", loss = 'mse' }")
    expect("net.lua: precision: string, must be a policy such as mptl.precision.demotion{}",
      head .. "return { model = " .. net .. ", precision = 'fp32' }")
    local err = plan_error(head .. "return { model = " .. net .. ", epoch = 3 }")
    assert.matches('^mptl: net%.lua: unknown field epoch %(did you mean "epochs"%?%), accepted are ', err)
  end)

  it("in the model are reported, too", function()
    expect("net.lua: model: function (cfg) returned a nil, must return a module or a function (x, cfg)",
      "return { model = function(cfg) end }")
    expect("0 (conv2d): input of 3 channels, declared for 4",
      head .. "return { model = function() return nn.Sequential { nn.Conv2d { 4, 4, kernel = 1 } } end }")
    expect("net.lua:3: fc (linear): input of 3072 features, declared for 100",
      head .. "return { model = function(x, cfg)\n  local fc = nn.Linear { 100, 10, name = 'fc' }\n"
      .. "  local y = fc(nn.flatten(x))\n  return y\nend }")
    expect("model: ends in 10 numbers, the data set has 100 classes", plain, "--dataset", "cifar100")
  end)
end)
