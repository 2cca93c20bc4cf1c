local axis = require "mptl.report.axis"
local chart = require "mptl.report.chart"
local heat = require "mptl.report.heat"
local text = require "mptl.report.text"

describe("mptl.report.axis", function()
  it("has round ticks around the values", function()
    assert.same({ "83.5", "84.0", "84.5", "85.0" }, axis.linear(83.65, 84.99).labels)
    assert.same({ "0", "20", "40", "60", "80" }, axis.linear(3, 79).labels)
    assert.same({ "0.0", "0.2", "0.4", "0.6", "0.8", "1.0" }, axis.linear(0, 1, { tight = true }).labels)
  end)

  it("surrounds a single value, and 0 when there is no value", function()
    local a = axis.linear(100, 100, { most = 100 })
    assert.is_true(a.low < 100 and a.high == 100)
    a = axis.linear(1e15, 1e15, { most = 100 })
    assert.is_true(a.low < 1e15 and a.high > 1e15)
    a = axis.linear(0, 0)
    assert.is_true(a.low < 0 and a.high > 0)
    assert.equal(0.5, a.at(0))
  end)

  it("has whole ticks where asked to", function()
    assert.same({ 1, 2, 3 }, axis.linear(1, 3, { integer = true, tight = true, ticks = 7 }).ticks)
  end)

  it("is logarithmic for positive values over more than two decades", function()
    assert.same({ "0.001", "0.01", "0.1", "1", "10" }, axis.fitting(0.002, 5).labels)
    assert.equal(0.25, axis.fitting(0.002, 5).at(0.01))
    assert.same({ "0", "50", "100", "150", "200" }, axis.fitting(0, 200).labels)
  end)
end)

describe("mptl.report.text", function()
  it("makes any text valid in XML", function()
    assert.equal("a&lt;b&gt;&amp;&quot;&#39;\u{FFFD}\u{FFFD}ü", text.escape "a<b>&\"'\0\xFFü")
    assert.equal("\u{FFFD}", text.escape "\u{FFFE}")
  end)

  it("shortens by characters", function()
    assert.equal("äöü", text.shorten("äöü", 3))
    assert.equal("äö…", text.shorten("äöüß", 3))
  end)

  it("quotes fields of CSV that need it", function()
    assert.equal('"a,b"', text.csv "a,b")
    assert.equal('"a""b"', text.csv 'a"b')
    assert.equal('"a\nb"', text.csv "a\nb")
    assert.same({ "", "0.5", "3", "3", "a b" }, { text.csv(nil), text.csv(0.5), text.csv(3.0), text.csv(3), text.csv "a b" })
  end)

  it("writes shares and powers", function()
    assert.same({ "0 %", "2.5 %", "0.0123 %", "1.0e-04 %" },
      { text.percent(0), text.percent(0.025), text.percent(0.000123), text.percent(1e-6) })
    assert.equal("2⁻¹²", text.power("2", -12))
  end)
end)

describe("mptl.report.chart", function()
  local function draw(points, fields)
    local s = { label = "run", class = "s1", points = points }
    for name, value in pairs(fields or {}) do s[name] = value end
    return chart.draw {
      title = "t", y_label = "y", x_label = "x", series = { s }, x = axis.linear(1, 4, { tight = true, integer = true }),
      y = axis.linear(10, 20),
    }.body
  end

  it("breaks a curve where a value is missing", function()
    local body = draw { { x = 1, y = 10 }, { x = 2, y = 12 }, { x = 3 }, { x = 4, y = 20 } }
    assert.equal(1, select(2, body:gsub("<polyline", "")))
    assert.matches('data%-v="1 10 2 12"', body)
    assert.equal(1, select(2, body:gsub("<circle", ""))) -- the point that is left alone
  end)

  it("puts a value below the axis at its edge, in figures", function()
    local body = draw({ { x = 1, y = 12 }, { x = 2, y = 3, value = "3.0" } }, { marker = "circle" })
    assert.matches(">3.0</text>", body)
    assert.equal(0, select(2, body:gsub("<polyline", "")))
  end)

  it("puts values below the axis above each other only where they would touch", function()
    local body = draw({ { x = 2, y = 3 }, { x = 2.02, y = 4 }, { x = 3, y = 5 } }, { marker = "circle" })
    local rows = {}
    for y, value in body:gmatch 'y="([%d.]+)" text%-anchor="%a+">([345])</text>' do rows[value] = tonumber(y) end
    assert.equal(rows["3"] - 15, rows["4"])
    assert.equal(rows["3"], rows["5"])
  end)
end)

describe("mptl.report.heat", function()
  it("draws neighbours of one level as one rectangle, and nothing for 0", function()
    local body = heat.draw {
      title = "t", subtitle = "s", x_label = "step", columns = { "1", "2", "3", "4", "5" },
      limits = { 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1 },
      limit_labels = { "a", "b", "c", "d", "e", "f" },
      rows = { { label = "fc v", cells = { 0.01, 0.005, 0, [5] = 1.0 } } },
    }.body
    local levels = {}
    for class in body:match("fc v.-</g>"):gmatch '<rect class="c(%d)"' do levels[#levels + 1] = class end
    assert.same({ "4", "6" }, levels)
  end)
end)
