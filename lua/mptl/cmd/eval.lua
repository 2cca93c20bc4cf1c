--- mptl eval: the test accuracy of a checkpoint, in its precision assignment and in fp32.
local json = require "mptl.json"
local lfs = require "lfs"
local misuse = require "mptl.misuse"
local checkpoint = require "mptl.checkpoint"
local options = require "mptl.options"
local resume = require "mptl.resume"
local script = require "mptl.script"
local trainer = require "mptl.trainer"

local M = { name = "eval", summary = "test accuracy of a checkpoint, in its precision assignment and in fp32" }

-- Options that take the value of the checkpoint's run, unless the command line gives them.
local inherited = options.select(function(row) return row.eval end)

local order = { "script", "checkpoint", "epoch", "images", "test_loss", "test_acc", "test_acc_fp32", "ratio_lo", "bits_ratio" }

function M.configure(parser)
  parser:argument("script", "model script: a path, or a name of an installed one")
  parser:argument("checkpoint", "safetensors file of a run, or parameters saved by PyTorch")
  options.add(parser)
end

local function inherit(args, settings)
  for _, name in ipairs(inherited) do
    local given = settings[name]
    if args[name] == nil and given ~= nil then
      local value, accepted = options.check(options.by_name[name], given)
      if value == nil then
        error(("%s: damaged: its state: settings.%s is %s, accepted are %s"):format(args.checkpoint, name, misuse.text(given),
          accepted), 0)
      end
      args[name] = value
    end
  end
end

--- Evaluates a checkpoint.
-- @param args options by name, script, checkpoint
-- @return table of the fields that --json prints
function M.evaluate(args)
  if not lfs.attributes(args.checkpoint, "mode") then misuse.usage("checkpoint %s: no such file", args.checkpoint) end
  local state, file = checkpoint.state(args.checkpoint)
  if state then resume.check_evaluated(args.checkpoint, state) end
  if state and not args.quick then inherit(args, state.settings or {}) end
  local t = trainer.create(script.configure(args.script, args), "eval")
  t:load(state, file)
  local tested, ratios = t:evaluate(), t.plan.graph:ratios()
  if tested.bad_images > 0 then io.stderr:write("mptl: ", t:left_out(tested.bad_images, "test"), "\n") end
  return {
    script = t.cfg.name, checkpoint = args.checkpoint, epoch = state and state.epoch or json.null, images = tested.count,
    test_loss = tested.loss, test_acc = tested.acc, test_acc_fp32 = tested.acc_fp32,
    ratio_lo = ratios.ratio_lo, bits_ratio = ratios.bits_ratio,
  }
end

function M.run(args)
  local result = M.evaluate(args)
  if args.json then
    io.stdout:write(json.encode(json.object(order, result)), "\n")
  else
    io.stdout:write(("%s: %d test images: loss %.4f, accuracy %.2f%%, in fp32 %.2f%% (ratio_lo %.3f)\n"):format(result.checkpoint,
      result.images, result.test_loss, result.test_acc, result.test_acc_fp32, result.ratio_lo))
  end
  return 0
end

return M
