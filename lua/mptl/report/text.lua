--- Text for HTML, SVG and CSV: escaping, numbers.
local M = {}

local entities = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }
local replacement = "\u{FFFD}"

-- Valid UTF-8 without characters that XML does not allow.
local function clean(text)
  local parts, at = {}, 1
  while at <= #text do
    local _, bad = utf8.len(text, at)
    parts[#parts + 1] = text:sub(at, bad and bad - 1 or -1)
    if not bad then break end
    parts[#parts + 1] = replacement
    at = bad + 1
  end
  return (table.concat(parts):gsub("[\0-\8\11\12\14-\31\127]", replacement):gsub("\u{FFFE}", replacement)
    :gsub("\u{FFFF}", replacement))
end

--- Escapes text for HTML and XML, attributes included. Invalid UTF-8 becomes U+FFFD.
-- @param text any text
-- @return escaped text
function M.escape(text)
  return (clean(tostring(text)):gsub("[&<>\"']", entities))
end

--- Shortens text; an ellipsis stands for the rest.
-- @param text any text
-- @param most the most characters of the result
-- @return valid UTF-8, not escaped
function M.shorten(text, most)
  text = clean(text)
  if utf8.len(text) <= most then return text end
  return text:sub(1, utf8.offset(text, most) - 1) .. "…"
end

--- The approximate width of text in pixels (wide sans-serif letters).
-- @param text valid UTF-8
-- @param size of the font, in pixels
-- @return pixels
function M.width(text, size)
  return (utf8.len(text) or #text) * size * 0.545
end

local superscripts = { ["-"] = "⁻", ["0"] = "⁰", ["1"] = "¹", ["2"] = "²", ["3"] = "³", ["4"] = "⁴", ["5"] = "⁵", ["6"] = "⁶",
  ["7"] = "⁷", ["8"] = "⁸", ["9"] = "⁹" }

--- A power, with its exponent in superscript: "2¹⁶".
-- @param base a number or text
-- @param exponent a number
-- @return text
function M.power(base, exponent)
  return base .. (("%.6g"):format(exponent):gsub("[-%d]", superscripts))
end

--- A number in at most six digits, as short as possible: "0.5", "1", "1e-05".
-- @param x a number
-- @return text
function M.short(x)
  return ("%.6g"):format(x)
end

--- A share as a percentage with its leading digits: "0 %", "0.012 %", "84.8 %".
-- @param share 0 to 1
-- @return text
function M.percent(share)
  if share == 0 then return "0 %" end
  return (share >= 0.0001 and "%.3g %%" or "%.1e %%"):format(100 * share)
end

--- A field of a CSV line (RFC 4180).
-- @param value text, number, boolean or nil
-- @return text
function M.csv(value)
  if value == nil then return "" end
  if math.type(value) == "float" then
    return math.tointeger(value) and tostring(math.tointeger(value)) or ("%.14g"):format(value)
  end
  local text = tostring(value)
  if text:find '[,"\r\n]' or text:find "^%s" or text:find "%s$" then return '"' .. text:gsub('"', '""') .. '"' end
  return text
end

return M
