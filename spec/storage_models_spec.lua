-- Packed storage in every network that is installed.
local script = require "mptl.script"
local storage = require "support.storage"

describe("packed storage gives the bits of emulated storage", function()
  for _, model in ipairs(script.models()) do
    for _, policy in ipairs { "fp32", "operator", "demotion", "uniform_low" } do
      it("after 20 steps of " .. model .. " under " .. policy, function()
        local cfg = script.configure(model, { width = 0.125, batch = 4, policy = policy, dataset = "synthetic" })
        local recorded = script.record(cfg)
        storage.same(recorded, function() return script.plan(cfg, recorded) end, 20, 4, cfg.input, { storage = "packed" },
          { storage = "emulated" })
      end)
    end
  end
end)
