--- Finds references in comments and documents, to sections of docs/method.md, files and headings, that do not exist.
-- Every check reads a text and returns a list of messages, "FILE:LINE: what is missing".
local lfs = require "lfs"

local M = {}

-- ---- The tree ----

-- Folders of the project; others are builds and runs.
local folders = { "bench", "bindings", "cmake", "docs", "engine", "host", "kernels", "lua", "models", "spec" }
local skipped = { venv = true, __pycache__ = true }

--- The files and folders of the project.
-- @param root the source tree
-- @return {root =, files = list of paths below root, exists = set of them and of the folders' paths}
function M.tree(root)
  local tree = { root = root, files = {}, exists = {} }
  local function walk(folder)
    tree.exists[folder] = true
    for name in lfs.dir(root .. "/" .. folder) do
      local path = folder .. "/" .. name
      if not name:find "^%." and not skipped[name] then
        if lfs.attributes(root .. "/" .. path, "mode") == "directory" then
          walk(path)
        else
          tree.files[#tree.files + 1], tree.exists[path] = path, true
        end
      end
    end
  end
  for _, folder in ipairs(folders) do walk(folder) end
  for name in lfs.dir(root) do
    if lfs.attributes(root .. "/" .. name, "mode") == "file" then tree.files[#tree.files + 1], tree.exists[name] = name, true end
  end
  table.sort(tree.files)
  return tree
end

--- The text of a file.
-- @param root the source tree
-- @param path below it
-- @return text
function M.read(root, path)
  local file <close> = assert(io.open(root .. "/" .. path, "rb"))
  return file:read "a"
end

-- ---- Text ----

local function blank(text)
  return (text:gsub("[^\n]", " "))
end

local function line_of(text, position)
  return select(2, text:sub(1, position - 1):gsub("\n", "")) + 1
end

-- Where a quoted string that begins at position ends.
local function string_end(text, position)
  local quote = text:sub(position, position)
  local at = position + 1
  while true do
    local found = text:find("[\\\n" .. quote .. "]", at)
    if not found then return #text end
    local c = text:sub(found, found)
    if c ~= "\\" then return found end
    at = found + 2
  end
end

-- By language: the end of the comment, string or character that begins at position, and whether it is a comment.
local piece_end = {}

function piece_end.c(text, position)
  local two = text:sub(position, position + 1)
  if two == "/*" then return select(2, text:find("*/", position + 2, true)) or #text, true end
  if two == "//" then return (text:find("\n", position, true) or #text + 1) - 1, true end
  if two:find "^[\"']" then return string_end(text, position) end
  return position
end

function piece_end.lua(text, position)
  local long = text:match("^%-%-%[(=*)%[", position)
  local is_comment = text:sub(position, position + 1) == "--"
  if is_comment and not long then return (text:find("\n", position, true) or #text + 1) - 1, true end
  long = long or text:match("^%[(=*)%[", position)
  if long then return select(2, text:find("]" .. long .. "]", position, true)) or #text, is_comment end
  if text:find("^[\"']", position) then return string_end(text, position) end
  return position
end

local starts = { c = "[/\"']", lua = "[-[\"']" }

--- The comments of a program; everything else, with the comment signs, becomes spaces, so that line numbers do not change.
-- @param text the program
-- @param language "c" or "lua"
-- @return text
function M.comments(text, language)
  local parts, at = {}, 1
  while true do
    local found = text:find(starts[language], at)
    local last, is_comment
    if found then last, is_comment = piece_end[language](text, found) end
    parts[#parts + 1] = blank(text:sub(at, (found or #text + 1) - 1))
    if not found then return table.concat(parts) end
    local piece = text:sub(found, last)
    if is_comment and language == "c" then
      piece = ("\n" .. piece):gsub("\n%s*[/*]+", blank):gsub("%*/$", "  "):sub(2)
    elseif is_comment then
      piece = piece:gsub("^%-+", blank)
    end
    parts[#parts + 1] = is_comment and piece or blank(piece)
    at = last + 1
  end
end

-- A Markdown page without fenced code, and without code spans if asked.
local function prose(markdown, without_spans)
  local text = ("\n" .. markdown):gsub("\n```.-\n```", blank):sub(2)
  return without_spans and (text:gsub("`[^`\n]*`", blank)) or text
end

--- The code spans of a Markdown page; everything else becomes spaces.
-- @param markdown the page
-- @return text
function M.spans(markdown)
  local text = prose(markdown)
  local rest = blank(text)
  for first, last in text:gmatch "`()[^`\n]*()`" do
    rest = rest:sub(1, first - 1) .. text:sub(first, last - 1) .. rest:sub(last)
  end
  return rest
end

-- ---- Sections ----

--- The numbers of a page's headings: "3" of "## 3. Tensors", "3.2" of "### 3.2 Roles".
-- @param markdown the page
-- @return set of numbers
function M.sections(markdown)
  local sections = {}
  for heading in ("\n" .. prose(markdown)):gmatch "\n#+ ([^\n]*)" do
    local number = heading:match "^(%d+)%. " or heading:match "^(%d+%.%d+) "
    if number then sections[number] = true end
  end
  return sections
end

-- Calls take with each number of a list such as "3, 4.1 and 5" at position of text.
local function each_number(text, position, take)
  local number, after = text:match("^(%d+%.?%d*)()", position)
  while number do
    take((number:gsub("%.$", "")))
    position = after
    after = text:match("^%.?,?%s+and%s+()%d", position) or text:match("^,%s+()%d+%.?%d*%f[^%w.%%]", position)
      or text:match("^%s+to%s+()%d", position)
    number, after = text:match("^(%d+%.?%d*)()", after or #text + 1)
  end
end

--- References to sections that docs/method.md does not have: "method.md 3.2", "method.md, sections 3 and 4",
-- "section 3 of method.md".
-- @param path of the text, for messages
-- @param text a document, or comments
-- @param sections the set of sections that there are
-- @return list of messages
function M.missing_sections(path, text, sections)
  local messages = {}
  local function check(position)
    each_number(text, position, function(number)
      if sections[number] then return end
      messages[#messages + 1] = ("%s:%d: method.md has no section %s"):format(path, line_of(text, position), number)
    end)
  end
  for position in text:gmatch "method%.md`?,?%s+()%d" do check(position) end
  for position in text:gmatch "method%.md`?,?%s+[Ss]ections?%s+()%d" do check(position) end
  for position in text:gmatch "[Ss]ections?%s+()%d[%d%s.,andto]-%s+of%s+%S*method%.md" do check(position) end
  return messages
end

--- The same for numbers in parentheses, with which docs/method.md refers to its own sections: "(3.4)".
-- @param path of the page, for messages
-- @param markdown the page
-- @return list of messages
function M.missing_own_sections(path, markdown)
  local messages, sections = {}, M.sections(markdown)
  for position, number in prose(markdown, true):gmatch "%(()(%d%.%d+)%)" do
    if not sections[number] then
      messages[#messages + 1] = ("%s:%d: there is no section %s"):format(path, line_of(markdown, position), number)
    end
  end
  return messages
end

-- ---- Links ----

--- The anchors of a page's headings, as GitHub makes them.
-- @param markdown the page
-- @return table: anchor -> heading
function M.anchors(markdown)
  local anchors, text = {}, prose(markdown)
  for heading in ("\n" .. text):gmatch "\n#+ +([^\n]*)" do
    local title = heading:gsub("%[([^%]]*)%]%([^)]*%)", "%1"):gsub("%s+$", "")
    local anchor, n = title:lower():gsub("[^%w%s_\x80-\xff-]", ""):gsub("%s", "-"), 0
    local unique = anchor
    while anchors[unique] do
      n = n + 1
      unique = ("%s-%d"):format(anchor, n)
    end
    anchors[unique] = title
  end
  for name in text:gmatch '<a%s+%a+="([^"]+)"' do anchors[name] = "" end
  return anchors
end

-- Resolves a relative path: `target`, as seen from the file `from`, without "." and "..".
local function resolve(from, target)
  local parts = {}
  for part in ((from:match "^(.*)/" or "") .. "/" .. target):gmatch "[^/]+" do
    if part == ".." then
      if #parts == 0 then return nil end
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return table.concat(parts, "/")
end

--- Relative links of a page to files or headings that do not exist, and links whose text names another section than their
-- target, such as "[3.2](#33-forward)".
-- @param path of the page, from the root
-- @param markdown the page
-- @param tree as M.tree returns it
-- @param read function (path) -> text of another page; M.read of the tree by default
-- @return list of messages
function M.missing_links(path, markdown, tree, read)
  local messages, text = {}, prose(markdown, true)
  read = read or function(other) return M.read(tree.root, other) end
  local function check(position, title, target)
    if target:find "^%a[%w+.-]*:" then return end
    local file, anchor = target:match "^([^#]*)#?(.*)$"
    local other = file == "" and path or resolve(path, file)
    local function say(what, ...)
      messages[#messages + 1] = ("%s:%d: " .. what):format(path, line_of(text, position), ...)
    end
    if file ~= "" and not (other and tree.exists[other:gsub("/$", "")]) then return say("no file %s", target) end
    if anchor == "" or not other:find "%.md$" then return end
    local heading = M.anchors(file == "" and markdown or read(other))[anchor]
    local number = title:match "^method (%d[%d.]*)$" or title:match "^(%d[%d.]*)$"
    if not heading then
      say("no heading for %s", target)
    elseif number and number ~= heading:match("^(%d+)%. ") and number ~= heading:match "^(%d+%.%d+) " then
      say("%s leads to \"%s\"", title, heading)
    end
  end
  for position, title, target in text:gmatch "()%[([^%[%]]*)%]%(([^%s()]+)%)" do check(position, title, target) end
  for position, target in ("\n" .. text):gmatch "\n()%[[^%]\n]*%]:%s*(%S+)" do check(position, "", target) end
  return messages
end

-- ---- Paths ----

local source = { c = true, h = true, cu = true, cpp = true, lua = true, py = true, md = true, cmake = true, supp = true }

-- Files of other projects, and generated ones.
local foreign = {
  ["jpeglib.h"] = true, ["lib/io/record_writer.h"] = true, ["src/libImaging/Resample.c"] = true, ["stdio.h"] = true,
}
local made = "^bench/venv"

local is_folder = {}
for _, folder in ipairs(folders) do is_folder[folder] = true end

-- Whether a path, or a path that ends in it, is in the tree; * matches any part of a name.
local function is_there(tree, path)
  if tree.exists[path] then return true end
  local pattern = "/" .. path:gsub("[^%w*/]", "%%%0"):gsub("%*", "[^/]*") .. "$"
  for other in pairs(tree.exists) do
    if ("/" .. other):find(pattern) then return true end
  end
  return false
end

--- Paths and names of source files that are not in the tree: "fused.c", "kernels/round.h", "engine/backend/cuda". Names with a
-- placeholder in capital letters ("spec/NAME_spec.lua") are ignored.
-- @param path of the text, for messages
-- @param text comments, or the code spans of a document
-- @param tree as M.tree returns it
-- @param with_folder whether to ignore names without a folder of the project: in documents they are often examples
-- @return list of messages
function M.missing_paths(path, text, tree, with_folder)
  local messages, known = {}, tree.known or {}
  tree.known = known
  text = text:gsub("%a+://[^%s)]+", blank)
  for position, word in text:gmatch "%f[%w_.*/-]()([%w_.*/-]+)" do
    local name = word:gsub("[./-]+$", ""):gsub("^%./", "")
    local extension, top = name:match "[%w_*]%.(%l+)$", name:match "^(%l+)/[%w_]"
    local in_folder = top and is_folder[top] and not name:find "//" and not name:find(made)
    local is_path = in_folder or (source[extension or ""] and not with_folder)
    if is_path and not name:find "^/" and not foreign[name] then
      if known[name] == nil then known[name] = is_there(tree, name) end
      local is_placeholder = name:find "%f[%w]%u[%u_]+%f[^%u]"
      if not known[name] and not is_placeholder then
        messages[#messages + 1] = ("%s:%d: no file %s"):format(path, line_of(text, position), name)
      end
    end
  end
  return messages
end

return M
