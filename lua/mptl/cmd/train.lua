--- mptl train: trains a script.
local options = require "mptl.options"
local shell = require "mptl.shell"
local script = require "mptl.script"
local train = require "mptl.train"

local M = { name = "train", summary = "train a script; results go to a run directory" }

function M.configure(parser)
  parser:argument("script", "model script: a path, or a name of an installed one")
  options.add(parser)
end

-- The command that continues a run: the same options, and the run's directory.
local function resumption(args, dir)
  local words = { "train", options.path(args.script), table.unpack(options.words(args, { out = true, resume = true })) }
  for _, word in ipairs(options.words { out = dir, resume = true }) do words[#words + 1] = word end
  return shell.command(words)
end

local function what_next(args, cfg, result)
  local last, path = result.metrics[#result.metrics], options.path(args.script)
  local hints, width = {
    { { "train", path, "--data", "DIR" },
      "trains on your images; docs/data.md says how to get CIFAR and ImageNet" },
    { { "plan", path, "--policy", "demotion", "--ratio", "0.7" },
      "shows the formats that a policy chooses" },
    { { "repl", path }, "opens the network in interactive Lua" },
  }, 0
  for _, hint in ipairs(hints) do
    hint[1] = shell.command(hint[1])
    width = math.max(width, #hint[1])
  end
  io.stdout:write(([[

%d epochs on the synthetic set: test accuracy %.1f%% under the policy %s, %.1f%% in fp32.
The run is in %s (metrics.jsonl, plan.json, checkpoints, TensorBoard events). Next:
]]):format(cfg.epochs, last.test_acc, cfg.policy, last.test_acc_fp32, result.dir))
  for _, hint in ipairs(hints) do io.stdout:write("  ", hint[1], (" "):rep(width + 3 - #hint[1]), hint[2], "\n") end
end

function M.run(args)
  local cfg = script.configure(args.script, args)
  local result = train.run(cfg)
  if result.interrupted then
    io.stderr:write(("mptl: interrupted; go on with: %s\n"):format(resumption(args, result.dir)))
    return 130
  end
  if args.quick and not args.quiet and not args.json then what_next(args, cfg, result) end
  return 0
end

return M
