--- mptl train: trains a script.
local options = require "mptl.options"
local script = require "mptl.script"
local train = require "mptl.train"

local M = { name = "train", summary = "train a script; results go to a run directory" }

function M.configure(parser)
  parser:argument("script", "model script: a path, or a name of an installed one")
  options.add(parser)
end

local function what_next(args, cfg, result)
  local last = result.metrics[#result.metrics]
  io.stdout:write(([[

%d epochs on the synthetic set: test accuracy %.1f%% under the policy %s, %.1f%% in fp32.
The run is in %s (metrics.jsonl, plan.json, checkpoints, TensorBoard events). Next:
  mptl train %s --data DIR      on images of your own; see docs/data.md for how to get CIFAR and ImageNet
  mptl plan %s --ratio 0.7      what a policy makes of the network
  mptl repl %s                  the same by hand, in Lua
]]):format(cfg.epochs, last.test_acc, cfg.policy, last.test_acc_fp32, result.dir, args.script, args.script, args.script))
end

function M.run(args)
  local cfg = script.configure(args.script, args)
  local result = train.run(cfg)
  if result.interrupted then
    io.stderr:write(("mptl: interrupted; go on with: mptl train %s ... --resume --out %s\n"):format(args.script, result.dir))
    return 130
  end
  if args.quick and not args.quiet and not args.json then what_next(args, cfg, result) end
  return 0
end

return M
