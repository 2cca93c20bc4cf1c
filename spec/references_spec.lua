-- Comments and documents refer only to sections, files and headings that exist.
local references = require "support.references"

local languages = { c = "c", h = "c", cu = "c", cpp = "c", lua = "lua" }

-- Texts in which a method reference may stand anywhere.
local others = { py = true, cmake = true, txt = true, md = true }

local function add(list, messages)
  table.move(messages, 1, #messages, #list + 1, list)
end

describe("references", function()
  local tree = { root = ".", files = {}, exists = {
    ["engine/program/step.c"] = true, ["engine/program"] = true, ["kernels/round.h"] = true, ["docs/method.md"] = true,
    ["docs/data.md"] = true, ["docs"] = true, ["README.md"] = true, ["spec/fixtures/tiny_low.lua"] = true,
  } }

  describe("of comments", function()
    it("are looked for in comments only, at their lines", function()
      local text = references.comments('a = "/* no */"; /* one\n * two */ b = \'"\'; // three "\nc; /* four */', "c")
      assert.same({ "one", "two", "three", "four" }, { text:match "^ +(one)\n +(two) +(three) \"\n +(four) +$" })
    end)

    it("are looked for in Lua, too", function()
      local text = references.comments('x = "-- no" --- one\ny = [[\n-- no\n]] --[[ two\nthree ]] z = 1 -- four', "lua")
      local words = {}
      for word in text:gmatch "%a+" do words[#words + 1] = word end
      assert.same({ "one", "two", "three", "four" }, words)
      assert.equal(4, select(2, text:gsub("\n", "")))
    end)
  end)

  describe("to sections of method.md", function()
    local page = "# The method\n\n## 1. Formats\n\n### 1.2 Names\n\n```\n## 9. No heading\n```\n\n## 4. Policies\n"
    local sections = references.sections(page)

    it("know its headings", function()
      assert.same({ ["1"] = true, ["1.2"] = true, ["4"] = true }, sections)
    end)

    for _, text in ipairs {
      "as method.md 1 has it", "(method.md 1.2)", "method.md 1 and 4: groups", "method.md 1.2, 4 and 1.",
      "docs/method.md, section 1.2", "sections 1 and 4 of docs/method.md", "see method.md\n   4 there", "method.md, in 2023",
    } do
      it("accept: " .. text:gsub("\n", " "), function()
        assert.same({}, references.missing_sections("a.c", text, sections))
      end)
    end

    for text, missing in pairs {
      ["as method.md 2 has it"] = { 1, "2" }, ["(method.md 1.3)"] = { 1, "1.3" }, ["method.md 1 and 5"] = { 1, "5" },
      ["\nmethod.md 1, 4.1 and 1.2"] = { 2, "4.1" }, ["`method.md`, section 9"] = { 1, "9" },
      ["section 3 of method.md"] = { 1, "3" }, ["sections 1 and 1.7 of docs/method.md"] = { 1, "1.7" },
      ["method.md\n  1.9"] = { 2, "1.9" },
    } do
      it("miss: " .. text:gsub("\n", " "), function()
        assert.same({ ("a.c:%d: method.md has no section %s"):format(table.unpack(missing)) },
          references.missing_sections("a.c", text, sections))
      end)
    end

    it("may stand in parentheses in the page itself", function()
      assert.same({}, references.missing_own_sections("m.md", page .. "as there (1.2), x (0.5 of all)"))
      assert.same({ "m.md:12: there is no section 1.3" }, references.missing_own_sections("m.md", page .. "as there (1.3)"))
    end)
  end)

  describe("as links", function()
    local pages = {
      ["docs/method.md"] = "## 3. Tensors, operators\n### 3.2 `FP(e,m,auto)` of [x](y)\n## Same\n## Same\n",
      ["docs/data.md"] = "# Data\n", ["README.md"] = "# R\n",
    }
    local function missing(text)
      return references.missing_links("docs/data.md", text, tree, function(path) return pages[path] end)
    end

    for _, text in ipairs {
      "[a](method.md)", "[a](method.md#3-tensors-operators)", "[3.2](method.md#32-fpemauto-of-x)", "[a](method.md#same-1)",
      "[a](../README.md)", "[a](../engine/program)", "[a](../engine/program/step.c)", "[a](https://x.org/#y)",
      "# Here\n[a](#here)",
      "`[a](no.md)`", "```\n[a](no.md)\n```", "[method 3.2](method.md#32-fpemauto-of-x)", "![a](method.md)", "[a]: method.md",
    } do
      it("lead somewhere: " .. text:gsub("\n", " "), function() assert.same({}, missing(text)) end)
    end

    for text, message in pairs {
      ["[a](methods.md)"] = "1: no file methods.md", ["\n[a](../engine/x.c)"] = "2: no file ../engine/x.c",
      ["[a](../../README.md)"] = "1: no file ../../README.md", ["[a](method.md#32)"] = "1: no heading for method.md#32",
      ["# Here\n\n[a](#there)"] = "3: no heading for #there", ["![a](a.svg)"] = "1: no file a.svg",
      ["[3.3](method.md#32-fpemauto-of-x)"] = "1: 3.3 leads to \"3.2 `FP(e,m,auto)` of x\"",
      ["[method 2](method.md#3-tensors-operators)"] = "1: method 2 leads to \"3. Tensors, operators\"",
      ["[a]: methods.md"] = "1: no file methods.md", ["[a](method.md#same-2)"] = "1: no heading for method.md#same-2",
    } do
      it("lead nowhere: " .. text:gsub("\n", " "), function() assert.same({ "docs/data.md:" .. message }, missing(text)) end)
    end
  end)

  describe("to files", function()
    for _, text in ipairs {
      "see step.c", "(kernels/round.h)", "program/step.c.", "spec/NAME_spec.lua", "FILE.lua", "fixtures/tiny*.lua",
      "engine/program:",
      "https://x.org/kriz.py", "stdio.h", "a/b of x.y", "`engine/program/`", "/tmp/x.lua", "p.out", "1.lua/s",
    } do
      it("exist: " .. text, function() assert.same({}, references.missing_paths("a.c", text, tree)) end)
    end

    for text, name in pairs {
      ["see steps.c"] = "steps.c", ["(kernels/rounds.h)"] = "kernels/rounds.h", ["program/model.c."] = "program/model.c",
      ["fixtures/big*.lua"] = "fixtures/big*.lua", ["in engine/plan"] = "engine/plan", ["`stage.cu`"] = "stage.cu",
      ["tep.c"] = "tep.c",
    } do
      it("do not exist: " .. text, function()
        assert.same({ "a.c:1: no file " .. name }, references.missing_paths("a.c", text, tree))
      end)
    end

    it("stand in code spans of documents, with their folder", function()
      local text = references.spans "kernels/a.h\n`kernels/round.h`, `my.lua`, `x`, `kernels/b.h`\n```\n`kernels/c.h`\n```\n"
      assert.same({ "d.md:2: no file kernels/b.h" }, references.missing_paths("d.md", text, tree, true))
    end)
  end)

  describe("of the project", function()
    local root = os.getenv "MPTL_ROOT"
    local real = references.tree(root)
    local sections = references.sections(references.read(root, "docs/method.md"))

    it("lead somewhere in comments", function()
      local messages, count = {}, 0
      for _, path in ipairs(real.files) do
        local language = languages[path:match "%.(%w+)$" or ""]
        if language then
          local text = references.comments(references.read(root, path), language)
          add(messages, references.missing_sections(path, text, sections))
          add(messages, references.missing_paths(path, text, real))
          count = count + 1
        end
      end
      assert.is_true(count > 300)
      assert.same({}, messages)
    end)

    it("lead somewhere in documents", function()
      local messages, count = {}, 0
      for _, path in ipairs(real.files) do
        local extension = path:match "%.(%w+)$"
        if others[extension or ""] then
          local text = references.read(root, path)
          add(messages, references.missing_sections(path, text, sections))
          if extension == "md" then
            add(messages, references.missing_links(path, text, real))
            add(messages, references.missing_paths(path, references.spans(text), real, true))
            count = count + 1
          end
        end
      end
      add(messages, references.missing_own_sections("docs/method.md", references.read(root, "docs/method.md")))
      assert.is_true(count > 8)
      assert.same({}, messages)
    end)
  end)
end)
