-- Checkpoints with a right checksum but an invalid state: one line that names the field.
local json = require "mptl.json"
local runs = require "support.runs"

describe("a checkpoint's state", function()
  local dir, sound, state

  -- The file with another state, and not sealed.
  local function write(changed)
    local length = string.unpack("<I8", sound)
    local header = assert(json.decode(sound:sub(9, 8 + length)))
    header.__metadata__ = { mptl = type(changed) == "string" and changed or json.encode(changed) }
    for _, entry in pairs(header) do
      if entry.shape then json.array(entry.shape) end
    end
    local text = json.encode(header)
    runs.spill(dir .. "/run/last.safetensors", string.pack("<I8", #text) .. text .. sound:sub(9 + length))
  end

  setup(function()
    dir = runs.directory()
    assert.equal(130, (runs.mptl(dir, "train tiny.lua --out run --quiet", "KILL=4")))
    sound = runs.slurp(dir .. "/run/last.safetensors")
    local length = string.unpack("<I8", sound)
    state = json.decode(json.decode(sound:sub(9, 8 + length)).__metadata__.mptl)
    state.sealed = nil
  end)
  teardown(function() runs.remove(dir) end)

  -- Floats are written in full, as checkpoints have them.
  local function copy(value)
    if math.type(value) == "float" then
      local text = ("%.17g"):format(value)
      return setmetatable({}, { __tojson = function() return text:find "[.e]" and text or text .. ".0" end })
    end
    if type(value) ~= "table" then return value end
    local result = setmetatable({}, getmetatable(value))
    for k, v in pairs(value) do result[k] = copy(v) end
    return result
  end

  local function fails(arguments, message)
    local code, _, err = runs.mptl(dir, arguments)
    assert.same({ 1, "mptl: run/last.safetensors: " .. message .. "\n" }, { code, err })
  end

  it("is accepted when it is valid", function()
    write(copy(state))
    assert.equal(0, (runs.mptl(dir, "eval tiny.lua run/last.safetensors")))
  end)

  local damages = {
    ["epoch is -1, accepted are whole numbers from 0 to 1000000"] = function(s) s.epoch = -1 end,
    ["batch is 1.5, accepted are whole numbers from 0 to 3"] = function(s) s.batch = 1.5 end,
    ["step is nil, accepted are whole numbers from 0 to 9007199254740992"] = function(s) s.step = nil end,
    ['updates is "3", accepted are whole numbers from 0 to 9007199254740992'] = function(s) s.updates = "3" end,
    ["sums is nil, accepted are objects"] = function(s) s.sums = nil end,
    ["sums.loss is true, accepted are numbers"] = function(s) s.sums.loss = true end,
    ["sums.scale_min is 0, accepted are numbers above 0"] = function(s) s.sums.scale_min = 0 end,
    ["loss_scale is 7, accepted are objects"] = function(s) s.loss_scale = 7 end,
    ["loss_scale.scale is a table, accepted are numbers above 0"] = function(s) s.loss_scale.scale = { x = 1 } end,
    ["formats is nil, accepted are lists of objects"] = function(s) s.formats = nil end,
    ["formats is a table, accepted are lists of objects"] = function(s) s.formats[1] = 5 end,
    ["promotions is nil, accepted are whole numbers from 0 to 9007199254740992"] = function(s) s.promotions = nil end,
    ['best is "x", accepted are numbers'] = function(s) s.best = "x" end,
    ["settings is false, accepted are objects"] = function(s) s.settings = false end,
  }
  for message, damage in pairs(damages) do
    it("is refused when " .. message, function()
      local changed = copy(state)
      damage(changed)
      write(changed)
      fails("train tiny.lua --out run --quiet --resume", "damaged: its state: " .. message)
      if message:match "^[efs]%l+ " and not message:find "^sums" then
        fails("eval tiny.lua run/last.safetensors", "damaged: its state: " .. message)
      end
    end)
  end

  it("is refused when its formats are invalid", function()
    local changed = copy(state)
    changed.formats[1].v = { "fp99", true }
    write(changed)
    local _, _, err = runs.mptl(dir, "train tiny.lua --out run --quiet --resume")
    assert.matches("^mptl: run/last.safetensors: damaged: the format for v of %S+: [^\n]*fp99[^\n]*\n$", err)
    changed.formats[1].v = { 1 }
    write(changed)
    _, _, err = runs.mptl(dir, "train tiny.lua --out run --quiet --resume")
    assert.matches("^mptl: run/last.safetensors: damaged, or of another network: no format for v of %S+\n$", err)
  end)

  it("is refused when a setting that an evaluation uses is invalid", function()
    local changed = copy(state)
    changed.settings.batch = { 1 }
    write(changed)
    local _, _, err = runs.mptl(dir, "eval tiny.lua run/last.safetensors")
    assert.matches("^mptl: run/last.safetensors: damaged: its state: settings.batch is a table, accepted are [^\n]+\n$", err)
  end)

  it("is refused when it is not an object, or nested too deeply", function()
    write "[1,"
    local _, _, err = runs.mptl(dir, "train tiny.lua --out run --quiet --resume")
    assert.matches("^mptl: run/last.safetensors: damaged: its state is no JSON object: [^\n]+\n$", err)
    write '"text"'
    fails("eval tiny.lua run/last.safetensors", "damaged: its state is no JSON object: string")
    write(("["):rep(300000))
    fails("eval tiny.lua run/last.safetensors", "damaged: its state is no JSON object: nested too deep")
  end)

  it("without its checksums is refused", function()
    local changed = copy(state)
    changed.sealed = true
    write(changed)
    fails("train tiny.lua --out run --quiet --resume", "damaged: it has lost its checksums")
  end)
end)
