-- Packed storage in every network that is installed.
local configuration = require "mptl.configuration"
local script = require "mptl.script"
local storage = require "support.storage"

require("mptl.core").set_threads(1) -- such small tensors take much longer on threads that share a processor

describe("packed storage gives the bits of emulated storage", function()
  for _, model in ipairs(script.models()) do
    for _, policy in ipairs { "fp32", "operator", "demotion", "uniform_low" } do
      local steps = model:find "imagenet" and 5 or 20 -- these have no operator that the others do not have
      it(("after %d steps of %s under %s"):format(steps, model, policy), function()
        local fields = script.load(model)
        fields.input, fields.classes = { 3, 32, 32 }, 10 -- the ImageNet networks', too
        local cfg = configuration.make(fields, { width = 0.125, batch = 4, policy = policy, dataset = "synthetic" })
        local recorded = script.record(cfg)
        storage.same(recorded, function() return script.plan(cfg, recorded) end, steps, 4, cfg.input, { storage = "packed" },
          { storage = "emulated" })
      end)
    end
  end
end)
