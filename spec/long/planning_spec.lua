-- The time to plan a network grows with its operators, not with their square (bench/planning).
local json = require "mptl.json"

local root = os.getenv "MPTL_ROOT"

describe("planning", function()
  it("of 8 times as many operators takes about 8 times as long, in each phase", function()
    if os.getenv "MPTL_SANITIZE" ~= "" then return pending "a sanitizer" end
    local command = ("'%s/bench/planning' --operators 1000,8000 --rounds 3 --json 2>/dev/null"):format(root)
    local pipe <close> = assert(io.popen(command))
    local rows = assert(json.decode(pipe:read "a")).rows
    local more = rows[2].operators / rows[1].operators
    assert.is_true(more > 7.9 and more < 8.1)
    for phase, seconds in pairs(rows[1].phases) do
      local ratio = rows[2].phases[phase] / seconds
      assert(ratio < 3 * more, ("%s takes %.1f times as long"):format(phase, ratio)) -- with its square: 64 times
    end
  end)
end)
