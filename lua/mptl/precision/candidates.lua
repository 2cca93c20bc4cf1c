--- Candidate sets C: a high and a low format for each role (method: Lee, Sharma, Aiken, TMLR 2023,
-- section 4). Roles: v (outputs), dv (their gradients), theta (parameters), dtheta (their
-- gradients).
local core = require "mptl.core"
local misuse = require "mptl.misuse"

local M = {}

M.roles = { "v", "dv", "theta", "dtheta" }

--- The sets with a name. Wherever a name is accepted, so is a table {high = ..., low = ...} like
-- these.
M.presets = {
  -- the paper's: the hybrid 8-bit formats of Sun et al. 2019, with 16 bits as high format
  hfp8 = { high = "FP(6,9,0)", low = { v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,4)", dtheta = "FP(6,9,0)" } },
  -- OCP's 8-bit formats, with bfloat16 as high format
  fp8 = { high = "bf16", low = { v = "fp8_e4m3fn", dv = "fp8_e5m2", theta = "fp8_e4m3fn", dtheta = "bf16" } },
  bf16 = { high = "fp32", low = "bf16" },
  fp16 = { high = "fp32", low = "fp16" },
}

local function check_format(what, format)
  if type(format) ~= "string" then misuse.raise("%s: %s, must be a format such as \"FP(4,3,4)\"", what, tostring(format)) end
  if core.format then misuse.call(core.format, format) end
  return format
end

-- The high or low formats of a set in full: from one format for all roles, or a table by role.
local function side(what, formats)
  local result = {}
  if type(formats) == "string" then
    for _, role in ipairs(M.roles) do result[role] = check_format(what, formats) end
    return result
  end
  if type(formats) ~= "table" then
    misuse.raise("%s: %s, must be a format or a table of formats by role (%s)", what, type(formats), table.concat(M.roles, ", "))
  end
  misuse.check_fields(what, formats, M.roles)
  for _, role in ipairs(M.roles) do
    if formats[role] == nil then misuse.raise("%s: the format of %s is missing", what, role) end
    result[role] = check_format(what .. "." .. role, formats[role])
  end
  return result
end

-- Reads the high or low formats from text: "FP(4,3,auto)", or
-- "v=FP(4,3,auto),dv=FP(5,2,0),theta=bf16,dtheta=bf16".
local function read_side(what, text)
  if not text:find "=" then return text:match "^%s*(.-)%s*$" end
  local result, whole = {}, text:gsub("%b()", function(brackets) return (brackets:gsub(",", ";")) end)
  for part in whole:gmatch "[^,]+" do
    local role, format = part:match "^%s*(%w+)%s*=%s*(.-)%s*$"
    if not role then
      misuse.raise("%s: %s, must be ROLE=FORMAT, roles are %s", what, part:gsub(";", ","), table.concat(M.roles, ", "))
    end
    result[role] = format:gsub(";", ",")
  end
  return result
end

-- Reads a set from text, HIGH/LOW; nil for other text.
local function read_set(text)
  local high, low = text:match "^([^/]+)/([^/]+)$"
  return high and { high = read_side("formats.high", high), low = read_side("formats.low", low) }
end

--- The set in full.
-- @param formats a name in M.presets; {high = F or {v=,dv=,theta=,dtheta=}, low = likewise}; or
--   such a table as text, "F/F" or "F/v=F,dv=F,theta=F,dtheta=F"
-- @return {high = {v=,...}, low = {v=,...}} of format names
-- @usage candidates.resolve("hfp8").low.v --> FP(4,3,4)
-- @usage candidates.resolve("FP(6,9,0)/FP(4,3,auto)").low.dv --> FP(4,3,auto)
function M.resolve(formats)
  local set, names = formats, misuse.names(M.presets)
  if type(formats) == "string" then
    set = M.presets[formats] or read_set(formats)
    if not set then
      misuse.raise("formats: %s, accepted are %s, HIGH/LOW, or a table {high=, low=}%s", formats, table.concat(names, ", "),
        misuse.suggest(formats, names))
    end
  elseif type(formats) ~= "table" then
    misuse.raise("formats: %s, accepted are a name (%s), HIGH/LOW, or a table {high=, low=}", type(formats),
      table.concat(names, ", "))
  end
  misuse.check_fields("formats", set, { "high", "low" })
  return { high = side("formats.high", set.high), low = side("formats.low", set.low) }
end

return M
