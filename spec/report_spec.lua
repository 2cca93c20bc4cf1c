local files = require "data_files"
local process = require "support.process"
local reports = require "support.reports"
local runs = require "support.runs"

-- How often a text appears in another.
local function count(text, plain)
  local n, at = 0, 1
  while true do
    local first, last = text:find(plain, at, true)
    if not first then return n end
    n, at = n + 1, last + 1
  end
end

local function contains(text, plain)
  assert.is_true(text:find(plain, 1, true) ~= nil, ("%q is not in the output"):format(plain))
end

describe("mptl report", function()
  local dir

  before_each(function()
    dir = files.directory()
  end)

  after_each(function() files.remove(dir) end)

  local function report(...)
    return process.mptl { "report", ... }
  end

  -- The page of runs, through stdout.
  local function page(...)
    local result = report(dir, "-o", "-", ...)
    assert.equal(0, result.status, result.err)
    return result.out, result.err
  end

  describe("finds runs", function()
    it("at any depth, once each, and distinguishes runs of the same name", function()
      reports.run(dir .. "/a/one", { policy = "demotion", ratio = 0.5, threshold = 0.01 }, 80)
      reports.run(dir .. "/b/deep/one", {}, 81)
      reports.run(dir .. "/b/two", { policy = "operator" }, 82)
      reports.write(dir .. "/b", { ["sweep.json"] = "{}" })
      assert(os.execute(("ln -s .. %s/b/up"):format(dir)))
      local result = report(dir, dir .. "/b", dir .. "/b/two/", "--csv", "-")
      assert.equal("", result.err)
      local names = {}
      for name in result.out:gmatch "\n([^,\n]+)," do names[#names + 1] = name end
      assert.same({ "deep/one", "two", "a/one" }, names)
    end)

    it("says which RUN holds none", function()
      local function refused(path, what)
        local result = report(path)
        assert.equal(2, result.status)
        assert.equal(("mptl report: RUN %s: %s\n"):format(path, what), result.err)
      end
      local accepted = ", accepted are run directories and directories of them"
      refused(dir, "holds no run (no config.json or metrics.jsonl in it or below)" .. accepted)
      refused(dir .. "/absent", "no such directory" .. accepted)
      reports.write(dir, { file = "text" })
      refused(dir .. "/file", "not a directory" .. accepted)
      assert.equal(2, report().status)
    end)
  end)

  describe("shows the outcome of a run", function()
    local function state(config, epochs)
      reports.write(dir, { ["config.json"] = reports.config(config), ["metrics.jsonl"] = epochs })
      local out = report(dir, "--csv", "-").out
      return out:match "\n[^\n]*,(%l[%l ]*),%d+,%d+,[^\n]*\r\n$"
    end

    it("finished or not", function()
      assert.equal("finished", state({}, { reports.epoch(1, 70), reports.epoch(2, 80) }))
      assert.equal("unfinished", state({}, { reports.epoch(1, 70) }))
      assert.equal("no epoch yet", state({}, {}))
    end)

    it("diverged, when a loss is NaN or the accuracy fell back to chance", function()
      local json = require "mptl.json"
      assert.equal("diverged", state({}, { reports.epoch(1, 70, { train_loss = json.null }) }))
      assert.equal("diverged", state({}, { reports.epoch(1, 70), reports.epoch(2, 10) }))
      assert.equal("at chance", state({}, { reports.epoch(1, 12), reports.epoch(2, 10) }))
    end)
  end)

  describe("ignores damage", function()
    it("and names the line", function()
      reports.run(dir .. "/run", {}, 80)
      local path = dir .. "/run/metrics.jsonl"
      runs.spill(path, runs.slurp(path) .. ("["):rep(100000) .. '\n{"epoch":-1}\n{"epoch":3,"test_a')
      local html, errors = page()
      assert.equal(("mptl report: %s line 3: not a JSON object, skipped\n"
        .. "mptl report: %s line 4: a field is missing or wrong, skipped\n"
        .. "mptl report: %s line 5: not a JSON object, skipped\n"):format(path, path, path), errors)
      contains(html, "metrics.jsonl line 3: not a JSON object, skipped")
      contains(html, "1 run: 1 finished.")
    end)

    it("and counts the lines when there are many", function()
      reports.run(dir, {}, 80)
      runs.spill(dir .. "/tensors.jsonl", ("x\n"):rep(10))
      local _, errors = page()
      assert.equal(4, count(errors, "\n"))
      contains(errors, "tensors.jsonl: 7 more damaged lines skipped")
    end)

    it("in impossible counts", function()
      local huge = "9223372036854775807"
      local tensor = '{"step":%s,"operator":"fc","role":"v","elements":8,"exponents":{"first":%s,"counts":[%s]}}\n'
      local many = "1" .. (",1"):rep(276)
      reports.write(dir, {
        ["config.json"] = reports.config(), ["metrics.jsonl"] = { reports.epoch(1, 70), reports.epoch(math.maxinteger, 80) },
        ["tensors.jsonl"] = tensor:format(1, -149, many) .. tensor:format(2, huge, 1) .. tensor:format(3, -148, many)
          .. tensor:format(huge, 0, 1) .. tensor:format(4, 0, -1) .. tensor:format(5, 127, "1,1"),
        ["changes.jsonl"] = ('{"step":%s,"epoch":1,"operator":"fc","role":"v","to":"fp32"}\n'):format(huge),
        ["gradient_error.jsonl"] = ('{"epoch":%s,"gradient":{}}\n'):format(huge),
      })
      local html, errors = page()
      local wrong = "a field is missing or wrong, skipped"
      contains(errors, "metrics.jsonl line 2: " .. wrong)
      contains(errors, "changes.jsonl line 1: " .. wrong)
      contains(errors, "gradient_error.jsonl line 1: " .. wrong)
      for line = 2, 4 do contains(errors, ("tensors.jsonl line %d: %s"):format(line, wrong)) end
      contains(errors, "tensors.jsonl: 2 more damaged lines skipped")
      contains(html, "1 run: 1 unfinished.")
    end)

    it("in settings and in values of the wrong type", function()
      reports.write(dir .. "/a", { ["config.json"] = "{", ["metrics.jsonl"] = { reports.epoch(1, 70) } })
      reports.write(dir .. "/b", {
        ["config.json"] = '{"script":[1],"policy":7,"width":"wide","epochs":-3,"seed":1e999}',
        ["metrics.jsonl"] = '{"epoch":1,"test_acc":"high","train_loss":1e999,"ratio_lo":{}}\n',
        ["changes.jsonl"] = '{"step":1}\n', ["gradient_error.jsonl"] = '{"epoch":1,"gradient":7}\n',
        ["tensors.jsonl"] = '{"step":1,"operator":"fc","role":"v","elements":0}\n',
      })
      local html, errors = page()
      contains(errors, "/a/config.json: not a JSON object, its settings are unknown")
      assert.equal(3, count(errors, "/b/"))
      contains(html, "2 runs")
    end)
  end)

  it("draws a curve for each policy, with means over seeds, and promotion off separately", function()
    for _, r in ipairs { 0.25, 0.5 } do
      reports.run(("%s/d%g"):format(dir, r), { policy = "demotion", ratio = r, threshold = 0.01 }, 80, { ratio_lo = r })
      reports.run(("%s/n%g"):format(dir, r), { policy = "demotion", ratio = r, threshold = false }, 79, { ratio_lo = r })
      for seed = 1, 3 do
        reports.run(("%s/r%g-%d"):format(dir, r, seed), { policy = "random", ratio = r, threshold = 0.01, policy_seed = seed },
          76 + seed, { ratio_lo = r })
      end
    end
    reports.run(dir .. "/f", {}, 81.5)
    local result = report(dir, "--svg", "-")
    assert.equal(0, result.status, result.err)
    local labels = {}
    for label in result.out:gmatch '<g class="key[^>]*>.-<text[^>]*>([^<]*)</text>' do labels[#labels + 1] = label end
    assert.same({ "fp32", "demotion", "demotion, no promotion", "random (mean and standard deviation)" }, labels)
    contains(result.out, "<title>random r=0.5: 78.00 % at 0.5000, mean of 3 seeds, standard deviation 1.00</title>")
    contains(result.out, "<title>demotion r=0.25: 80.00 % at 0.2500</title>")
  end)

  describe("of runs that differ in their seeds only", function()
    -- Accuracies 70, 73, 79: mean 74, standard deviation sqrt((16 + 1 + 25) / 2) = sqrt(21) = 4.5826.
    local function write_runs()
      for seed, accuracy in ipairs { 70, 73, 79 } do
        reports.run(("%s/s%d"):format(dir, seed), { policy = "operator", seed = seed }, accuracy)
      end
      reports.run(dir .. "/f", {}, 81.5)
    end

    it("has a table of means, standard deviations and their number", function()
      write_runs()
      local html = page()
      contains(html, "<h3>Means over seeds</h3>")
      contains(html, '<td>operator</td><td class="n">3</td>\n<td class="n" data-v="74">74.00 ± 4.58</td>')
      contains(html, '<td>fp32</td><td class="n">1</td>\n<td class="n" data-v="81.5">81.50</td>')
    end)

    it("has them as CSV", function()
      write_runs()
      assert.equal(0, report(dir, "--csv", dir .. "/t.csv").status)
      local means = runs.slurp(dir .. "/t-means.csv")
      contains(means, "script,width,dataset,runs,n,finished,test_acc,test_acc_sd,")
      contains(means, "net,1,cifar10,operator,3,true,74,4.5825756949558,")
      contains(means, "net,1,cifar10,fp32,1,true,81.5,,")
    end)

    it("leaves out unfinished ones, if others have finished", function()
      write_runs()
      reports.write(dir .. "/s4", {
        ["config.json"] = reports.config { policy = "operator", seed = 4 }, ["metrics.jsonl"] = { reports.epoch(1, 10) },
      })
      contains(page(), '<td>operator</td><td class="n">3</td>\n<td class="n" data-v="74">74.00 ± 4.58</td>')
    end)

    it("has no such table if there are none", function()
      reports.run(dir .. "/f", {}, 81.5)
      assert.is_nil(page():find("Means over seeds", 1, true))
    end)
  end)

  it("chooses ratio, accuracy and epoch", function()
    reports.write(dir, {
      ["config.json"] = reports.config { policy = "operator" },
      ["metrics.jsonl"] = { reports.epoch(1, 80, { test_acc_fp32 = 82 }), reports.epoch(2, 70, { test_acc_fp32 = 71 }) },
    })
    local function title(...)
      return report(dir, "--svg", "-", ...).out:match "<title>(operator: .-)</title>"
    end
    assert.equal("operator: 70.00 % at 0.5000", title())
    assert.equal("operator: 70.00 % at 0.4000", title("--against", "bits_ratio"))
    assert.equal("operator: 82.00 % at 0.5000", title("--accuracy", "fp32", "--epoch", "best"))
    local both, one = page(), page("--against", "ratio_lo", "--accuracy", "assignment")
    assert.equal(3, count(both, "<svg") - count(one, "<svg"))
  end)

  it("puts several networks side by side, and names what runs differ in", function()
    reports.run(dir .. "/a", { policy = "operator" }, 80)
    reports.run(dir .. "/b", { policy = "operator", rounding = "stochastic", storage = "emulated" }, 80)
    reports.run(dir .. "/c", { policy = "operator", width = 0.5 }, 80)
    local svg = report(dir, "--svg", "-").out
    contains(svg, "<title>net, width 1, cifar10: test accuracy, %, last epoch; net, width 0.5, cifar10:")
    contains(svg, ">operator, storage packed<")
    contains(svg, ">operator, rounding stochastic<")
  end)

  it("distinguishes runs that compute different things, and does not treat them as repetitions", function()
    reports.run(dir .. "/a", { policy = "operator", compute = "auto" }, 80)
    reports.run(dir .. "/b", { policy = "operator", compute = "tf32" }, 81)
    reports.run(dir .. "/c", { policy = "operator", compute = "auto", image_size = 64 }, 82)
    local svg = report(dir, "--svg", "-").out
    contains(svg, ">operator<")
    contains(svg, ">operator, compute tf32<")
    contains(svg, ">operator, image_size 64<")
    assert.is_nil(svg:find("mean of", 1, true))
  end)

  it("names the run that lacks a setting that most others have", function()
    for i, side in ipairs { 64, 64, false } do
      reports.run(("%s/%d"):format(dir, i), { policy = "operator", seed = i, image_size = side or nil }, 80 + i)
    end
    local svg = report(dir, "--svg", "-").out
    contains(svg, ">operator (mean and standard deviation)<")
    contains(svg, ">operator, image_size default<")
  end)

  it("knows every built-in policy", function()
    local known = {}
    for _, name in ipairs(require "mptl.report.compare".policies) do known[name] = true end
    for _, name in ipairs(require "mptl.precision".names) do assert.is_true(known[name], name) end
  end)

  it("draws what was recorded of tensors, changes and gradients", function()
    reports.run(dir, { policy = "demotion", ratio = 0.5, threshold = 0.01 }, 80, { promotions = 1 })
    local function tensor(step, overflow)
      return {
        step = step, epoch = 1, operator = "fc", role = "v", format = "FP(4,3,4)", elements = 1000, underflow = 0,
        overflow = overflow, inf = 0, nan = 0, max = 3.5, exponents = { first = -1, counts = { 1, 2, 1 } },
      }
    end
    local size = { size = 1.0, absolute = 0.5, relative = 0.25 }
    reports.write(dir, {
      ["changes.jsonl"] = {
        { step = 12, epoch = 1, operator = "fc", role = "v", from = "FP(4,3,4)", to = "FP(6,9,0)", cause = "overflow" },
      },
      ["tensors.jsonl"] = { tensor(100, 0), tensor(200, 25) },
      ["gradient_error.jsonl"] = {
        {
          epoch = 1, images = 8, gradient = size, update = size,
          parameters = { { name = "fc.weight", numel = 4, gradient = size, update = size } },
        },
      },
    })
    local html = page()
    contains(html, "<title>fc v, FP(4,3,4): at most 2.5 %, at step 200</title>")
    contains(html, "demotion r=0.5: 1 change of format")
    contains(html, "<td>fc</td><td>v</td><td>FP(6,9,0)</td><td class=\"n\">1</td>")
    contains(html, "Exponents of v")
    contains(html, "By parameter: demotion r=0.5")
    contains(html, "relative error to binary32")
    assert.equal(0, count(html, ">Underflow<"))
  end)

  it("escapes what comes from users", function()
    reports.run(dir .. '/<i>"&', { script = "<script>alert(1)</script>", policy = 'a "b" & <c>\0\255' }, 80)
    local html = page()
    assert.equal(1, count(html, "<script>")) -- the page's own
    contains(html, "&lt;script&gt;alert(1)&lt;/script&gt;, width 1, cifar10")
    contains(html, "&lt;i&gt;&quot;&amp;")
    local svg = report(dir, "--svg", "-").out
    contains(svg, "a &quot;b&quot; &amp; &lt;c&gt;\u{FFFD}")
    assert.truthy(utf8.len(svg))
    assert.is_nil(svg:find "[\0-\8]")
  end)

  it("writes a page that needs no other file", function()
    reports.run(dir, {}, 80)
    local html = page():gsub('xmlns="[^"]*"', "")
    assert.is_nil(html:find "https?://")
    assert.is_nil(html:find "<link")
    assert.is_nil(html:find " src=")
    assert.is_nil(html:find "url%(")
    contains(html, "prefers-color-scheme:dark")
  end)

  describe("writes", function()
    it("report.html when nothing else is asked for, and says so", function()
      reports.run(dir .. "/run", {}, 80)
      local code, out, errors = runs.mptl(dir, "report run")
      assert.same({ 0, "wrote report.html\n", "" }, { code, out, errors })
      contains(runs.slurp(dir .. "/report.html"), "<!DOCTYPE html>")
    end)

    it("tables as CSV of RFC 4180", function()
      reports.run(dir .. '/a,"b"', { policy = "demotion", ratio = 0.5, threshold = false }, 80, { seconds = 1.5 })
      local code, out = runs.mptl(dir, "report . --csv t.csv")
      assert.same({ 0, "wrote t.csv\nwrote t-means.csv\nwrote t-epochs.csv\n" }, { code, out })
      assert.is_false(runs.exists(dir .. "/report.html"))
      assert.equal("run,script,width,dataset,policy,ratio,k,threshold,seed,policy_seed,state,epochs,epochs_wanted,test_acc,"
        .. "best_test_acc,test_acc_fp32,train_loss,test_loss,ratio_lo,bits_ratio,promotions,skipped_steps,peak_bytes,seconds,"
        .. 'directory\r\n"a,""b""",net,1,cifar10,demotion,0.5,,off,1,,finished,2,2,80,80,80,1.5,1.25,0.5,0.4,0,2,2500000,3,'
        .. '"./a,""b"""\r\n', runs.slurp(dir .. "/t.csv"))
      assert.equal("run,epoch,lr,train_loss,train_acc,test_loss,test_acc,test_acc_fp32,loss_scale_log2_min,loss_scale_log2_max,"
        .. "skipped_steps,promotions,ratio_lo,bits_ratio,peak_bytes,images_per_s,seconds\r\n"
        .. '"a,""b""",1,0.1,1.5,50,1.25,70,70,15,16,1,0,0.5,0.4,2500000,10,1.5\r\n'
        .. '"a,""b""",2,0.1,1.5,50,1.25,80,80,15,16,1,0,0.5,0.4,2500000,10,1.5\r\n', runs.slurp(dir .. "/t-epochs.csv"))
    end)

    it("at most one thing to stdout, and then its messages to stderr", function()
      reports.run(dir .. "/run", {}, 80)
      local code, out, errors = runs.mptl(dir, "report run --svg - --csv -")
      assert.same({ 2, "", "mptl report: -: only one of --output, --svg and --csv can go to stdout\n" }, { code, out, errors })
      code, out, errors = runs.mptl(dir, "report run --svg - -o page.html")
      assert.same({ 0, "wrote page.html\n", "<svg" }, { code, errors, out:sub(1, 4) })
    end)

    it("each chart by epoch that has something to show", function()
      reports.run(dir, { policy = "operator" }, 80)
      for _, chart in ipairs { "accuracy", "accuracy_fp32", "loss", "test_loss", "loss_scale", "skipped" } do
        contains(report(dir, "--svg", "-", "--chart", chart).out, "<polyline")
      end
      local result = report(dir, "--svg", "-", "--chart", "promotions")
      assert.same({ 1, "mptl: --svg -: the runs have nothing to show in the chart promotions\n" }, { result.status, result.err })
    end)

    it("nothing for a wrong value, and names what is accepted", function()
      reports.run(dir, {}, 80)
      local result = report(dir, "--against", "bits")
      assert.same({ 2, "mptl report: --against: bits, accepted are ratio_lo, bits_ratio\n" }, { result.status, result.err })
      result = report(dir, "--chart", "loss")
      assert.same({ 2, "mptl report: --chart loss: goes with --svg FILE.svg\n" }, { result.status, result.err })
      result = report(dir, "-o", dir .. "/absent/page.html")
      assert.equal(1, result.status)
      contains(result.err, dir .. "/absent/page.html")
    end)
  end)

  for picture, args in pairs {
    ["curves.svg"] = { "results/cifar10-w0.25", "--chart", "accuracy" }, ["tradeoff.svg"] = { "results/cifar10-w0.1" },
  } do
    it("draws docs/" .. picture .. " from docs/results", function()
      local docs = os.getenv "MPTL_ROOT" .. "/docs/"
      local result = report(docs .. args[1], "--svg", "-", table.unpack(args, 2))
      assert.equal("", result.err)
      assert.is_true(result.out == runs.slurp(docs .. picture), picture .. " is old; docs/results.md has the command")
    end)
  end
end)
