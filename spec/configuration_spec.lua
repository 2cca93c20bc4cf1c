local configuration = require "mptl.configuration"
local options = require "mptl.options"
local resume = require "mptl.resume"

-- The configuration of a script without a model: these specs do not use one.
local function make(args)
  return configuration.make({ path = "net.lua", name = "net", dataset = "synthetic", width = 2 }, args or {})
end

-- The error of f, without the place where it was raised.
local function mistake(f)
  local ok, message = pcall(f)
  assert.is_false(ok)
  return (tostring(message):gsub("^[^\n]-configuration_spec%.lua:%d+: ", ""))
end

describe("a configuration", function()
  it("is complete when it is made: options, shape, optimizer, policy, device", function()
    local cfg = make { epochs = 3, device = "cpu" }
    assert.same({ "net.lua", "net", "synthetic", 2, 3, 128, 10, 32 },
      { cfg.path, cfg.name, cfg.dataset, cfg.width, cfg.epochs, cfg.batch, cfg.classes, cfg.input[2] })
    assert.same({ 0.1, "fp32", "cpu", false }, { cfg.lr, cfg.policy, cfg.device, cfg.json })
    assert.is_nil(cfg.steps_every)
  end)

  it("refuses assignments", function()
    local cfg = make()
    local accepted = "cannot be assigned, accepted are options of script.configure and fields of the script"
    assert.equal("configuration.batch = 3: " .. accepted, mistake(function() cfg.batch = 3 end))
    assert.equal("configuration.resume = true: " .. accepted, mistake(function() cfg.resume = true end))
    assert.equal("configuration.input[1] = 1: " .. accepted, mistake(function() cfg.input[1] = 1 end))
    assert.same({ 128, 3 }, { cfg.batch, cfg.input[1] })
  end)

  it("refuses names of fields that it does not have", function()
    local cfg = make()
    local message = '^configuration has no field bacth %(did you mean "batch"%?%), it has batch, classes, .*, width$'
    assert.matches(message, mistake(function() return cfg.bacth end))
    assert.matches(message, mistake(function() cfg.bacth = 1 end))
    assert.matches("^configuration has no field 1, ", mistake(function() return cfg[1] end))
  end)

  it("can be iterated and shown as a table", function()
    local seen = {}
    for name, value in pairs(make()) do seen[name] = value end
    assert.same({ "net", 128, false }, { seen.name, seen.batch, seen.quiet })
    assert.is_nil(seen.steps_every)
    assert.matches("^{ batch = 128, classes = 10, .*, width = 2 }$", tostring(make()))
  end)

  it("has the device's own name, unless it is only checked", function()
    assert.matches("^%-%-device cuda:99: ", mistake(function() make { device = "cuda:99" } end))
    configuration.check({ path = "net.lua", name = "net" }, { device = "cuda:99" })
    assert.equal("--policy-seed: the policy fp32 has no seed",
      mistake(function() configuration.check({ path = "net.lua", name = "net" }, { policy_seed = 1 }) end))
  end)
end)

describe("settings", function()
  local free = {
    "data", "device", "exponents", "gradient_error", "json", "on_bad_image", "on_nan", "on_skipped", "out", "path",
    "quick", "quiet", "resume", "steps_every", "storage", "tensors_every", "threads", "version",
  }

  it("change results unless their row says that they do not", function()
    local found = {}
    for _, name in ipairs(configuration.settings_names) do
      if not configuration.changes_results(name) then found[#found + 1] = name end
    end
    table.sort(found)
    assert.same(free, found)
  end)

  it("are those of config.json, every option among them", function()
    local known = {}
    for _, name in ipairs(configuration.settings_names) do known[name] = true end
    for _, name in ipairs(options.names) do assert.is_true(known[name], name) end
    assert.equal("script path version classes input dataset", table.concat(configuration.settings_names, " ", 1, 6))
    assert.equal(#options.names + 9, #configuration.settings_names)
  end)

  it("may differ between a run and its continuation where they do not change results", function()
    for _, name in ipairs(configuration.settings_names) do
      local _, message = pcall(resume.check_settings, "run/last.safetensors", { [name] = 1 }, { [name] = 2 })
      local expected = configuration.changes_results(name)
        and ("--resume: run/last.safetensors was made with other settings: %s is 1, was 2"):format(name) or "nil"
      assert.equal(expected, tostring(message))
    end
  end)

  it("of no row change results", function()
    assert.is_true(configuration.changes_results "of_another_version")
    assert.same({ of_another_version = 1, lr = 0.1 },
      configuration.essential { of_another_version = 1, lr = 0.1, threads = 4, path = "net.lua" })
  end)
end)

describe("an option's row", function()
  local columns = {
    "above", "arg", "choices", "default", "eval", "help", "max", "min", "name", "policy", "quick", "results", "script",
    "sweep", "type",
  }

  it("has columns of these names only, since any other would have no effect", function()
    local known = {}
    for _, name in ipairs(columns) do known[name] = true end
    for _, row in ipairs(options.rows) do
      for column in pairs(row) do
        assert.is_true(column == 1 or column == 2 or known[column], ("%s: %s"):format(row.name, column))
      end
    end
  end)

  it("has values that the option accepts", function()
    for _, row in ipairs(options.rows) do
      for _, column in ipairs { "default", "quick" } do
        local value = row[column]
        if value ~= nil then assert.equal(value, (options.check(row, value))) end
      end
    end
  end)

  it("is all that a new option needs, and the option changes results", function()
    local row = { "new", "whole", min = 1, max = 9, default = 3, help = "new", name = "new", type = "whole" }
    table.insert(options.rows, row)
    package.loaded["mptl.configuration"] = nil
    local ok, message = pcall(function()
      local fresh = require "mptl.configuration"
      local cfg = fresh.make({ path = "net.lua", name = "net", dataset = "synthetic" }, {})
      assert.equal(3, cfg.new)
      assert.equal(3, fresh.settings(cfg).new)
      assert.equal(3, fresh.essential(fresh.settings(cfg)).new)
    end)
    table.remove(options.rows)
    package.loaded["mptl.configuration"] = configuration
    if not ok then error(message, 0) end
  end)

  it("says what eval takes from a run, and what a sweep sets itself", function()
    assert.same({ "dataset", "image_size", "limit_test", "width", "batch", "seed", "rounding" },
      options.select(function(row) return row.eval end))
    assert.same({ "out", "resume", "quiet", "json" }, options.select(function(row) return row.sweep == false end))
    assert.same({ "ratio", "k", "threshold", "formats" }, options.select(function(row) return row.policy end))
  end)
end)
