--- Quoting for a shell: commands that a user may paste, or that a script runs.
local misuse = require "mptl.misuse"

local M = {}

--- Quotes a word for a POSIX shell. A word with control characters is written as $'...', so that it
-- stays on one line; this is for pasting into a terminal, since not every sh knows that form.
-- @param word text
-- @return text
function M.quote(word)
  if word:find "^[%w./_=+:,@%%-]+$" then return word end
  if not word:find "%c" then return "'" .. word:gsub("'", "'\\''") .. "'" end
  return "$'" .. word:gsub("[\\']", "\\%0"):gsub("%c", function(c) return ("\\%03o"):format(c:byte()) end) .. "'"
end

--- Joins words to a command, quoted where needed.
-- @param words list of text
-- @return text
function M.join(words)
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = M.quote(word) end
  return table.concat(quoted, " ")
end

--- A command of this program, as the user types it in the folder where this process was started.
-- @param words list of text: the command and its arguments
-- @return text
-- @usage shell.command { "report", "my runs" } --> "./mptl report 'my runs'"
function M.command(words)
  return M.join { M.program(), table.unpack(words) }
end

--- This program's name, as the user typed it. The launcher ./mptl passes its own in MPTL_PROGRAM.
-- @return text; "mptl" in another Lua
function M.program()
  local name = os.getenv "MPTL_PROGRAM"
  if name and name ~= "" then return name end
  return MPTL_MODELS and arg and arg[0] or "mptl"
end

--- Splits a text into words, with quotes and backslashes as in a shell. Nothing is expanded or run.
-- @param text for example "--time=8:00:00 --comment='two words'"
-- @param what the option that the text comes from, for messages
-- @return list of words
function M.split(text, what)
  local words, word, quote, i = {}, nil, nil, 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == "\\" and quote ~= "'" and i < #text then
      i = i + 1
      word = (word or "") .. text:sub(i, i)
    elseif quote then
      if c == quote then quote = nil else word = word .. c end
    elseif c == "'" or c == '"' then
      quote, word = c, word or ""
    elseif c:find "%s" then
      words[#words + 1], word = word, nil
    else
      word = (word or "") .. c
    end
    i = i + 1
  end
  if quote then misuse.usage("%s: %s: the quote %s is not closed", what, text, quote) end
  words[#words + 1] = word
  return words
end

return M
