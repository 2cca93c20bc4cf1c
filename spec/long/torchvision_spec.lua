-- Outputs of whole networks with torchvision's parameters. Run by hand, because the files are too large for the tree:
--   python spec/make_networks_fixture.py --whole DIR && MPTL_TORCHVISION=DIR spec/run build spec/long/torchvision_spec.lua
local checkpoint = require "mptl.checkpoint"
local core = require "mptl.core"
local net = require "support.network"
local safetensors = require "mptl.safetensors"
local script = require "mptl.script"

local dir = os.getenv "MPTL_TORCHVISION"

local networks = {
  shufflenet_v2_x0_5 = { "shufflenetv2_imagenet", 0.5 },
  shufflenet_v2_x1_0 = { "shufflenetv2_imagenet", 1 },
  shufflenet_v2_x1_5 = { "shufflenetv2_imagenet", 1.5 },
  shufflenet_v2_x2_0 = { "shufflenetv2_imagenet", 2 },
  resnet50 = { "resnet50_imagenet", 1 },
}

local function read(path, name)
  local file = safetensors.open(path)
  local tensor = core.tensor(file.tensors[name].shape)
  safetensors.read(file, name, tensor)
  return tensor
end

describe("torchvision's state_dict", function()
  for name, row in pairs(networks) do
    it("of " .. name .. " gives its outputs", function()
      if not dir then return pending "no files: set MPTL_TORCHVISION" end
      local graph = script.record(script.configure(row[1], { width = row[2] }))
      local model = core.model(graph)
      local _, file = checkpoint.state(("%s/%s.safetensors"):format(dir, name))
      checkpoint.load(file, graph, model, false)
      local results = ("%s/%s.output.safetensors"):format(dir, name)
      local program = core.program(model, core.assignment(graph, 2, net.fp32), { train = false, keep_all = true })
      program:forward(read(results, "x"), { 0, 1 })
      net.assert_close(read(results, "output"):totable(), program:read(#graph:operators() - 2):totable(), 5e-6, "output")
    end)
  end
end)
