local json = require "mptl.json"
local process = require "support.process"
local units = require "support.units"

local root = os.getenv "MPTL_ROOT"

local function fixture()
  local file <close> = assert(io.open(root .. "/spec/fixtures/groups_resnet18.json"))
  return assert(json.decode(file:read "a"))
end

local function plan(...)
  local result = process.mptl { "plan", "resnet18_cifar.lua", "--json", ... }
  assert.same({ "", 0 }, { result.err, result.status })
  return assert(json.decode(result.out)), result.out
end

describe("mptl plan --json", function()
  it("gives the published groups, orders and ratios of ResNet-18", function()
    local expected = fixture()
    for r, demotion in pairs(expected.demotion) do
      local t = plan("--ratio", r)
      assert.same(demotion.low, t.order)
      assert.near(demotion.ratio_lo, t.ratio_lo, 1e-12)
      local low = {}
      for _, index in ipairs(demotion.low) do low[index] = true end
      for i, group in ipairs(expected.groups) do
        group.low = low[group.group] or false
        assert.same(group, t.groups[i])
      end
    end
  end)

  it("has the documented fields in the documented order", function()
    local t, text = plan("--ratio", "0.1")
    assert.matches('^{"model":"resnet18_cifar","batch":128,"parameters":11173962,"groups":%[{"group":0,"activations":393216,'
      .. '"parameters":1728,"numel":789888,"low":false}', text)
    assert.matches('"order":%[5%],"tensors":%[{"index":0,"name":"input","kind":"input","group":0,'
      .. '"v":{"format":"FP%(6,9,0%)","numel":393216},"dv":{"format":"FP%(6,9,0%)","numel":393216},"theta":null,"dtheta":null},',
      text)
    assert.matches('"theta":{"format":"FP%(6,9,0%)","numel":1728,"group":0}', text)
    assert.matches('%],"ratio_lo":0%.1238%d*,"bits":{"all_high":8693832000,"now":%d+,"ratio":0%.%d+},'
      .. '"memory":{"emulated_bytes":%d+,"packed_bytes":%d+}}\n$', text)
    assert.equal(70, #t.tensors)
    assert.is_true(t.memory.packed_bytes < t.memory.emulated_bytes)
  end)

  it("adds up: tensors make the groups, groups the ratios", function()
    local t = plan("--policy", "demotion", "--ratio", "0.7", "--batch", "16", "--width", "0.25")
    local numel, low, all, bits = {}, 0, 0, 0
    local format_bits = { ["FP(6,9,0)"] = 16, ["FP(4,3,4)"] = 8, ["FP(5,2,0)"] = 8 }
    for _, row in ipairs(t.tensors) do
      for _, role in ipairs { "v", "dv", "theta", "dtheta" } do
        local tensor = row[role]
        if tensor then
          local group = tensor.group or row.group
          numel[group] = (numel[group] or 0) + tensor.numel
          bits = bits + tensor.numel * format_bits[tensor.format]
        end
      end
    end
    for _, group in ipairs(t.groups) do
      assert.equal(numel[group.group], group.numel)
      all = all + group.numel
      if group.low then low = low + group.numel end
    end
    assert.near(low / all, t.ratio_lo, 1e-12)
    assert.equal(bits, t.bits.now)
    assert.equal(all * 16, t.bits.all_high)
  end)

  it("counts no element twice at another batch size and width", function()
    local t = plan("--batch", "1", "--width", "0.1", "--dataset", "cifar100", "--policy", "fp32")
    assert.equal(3 * 32 * 32, t.groups[1].activations)
    assert.equal("fp32", t.tensors[1].v.format)
    assert.same({ 0, 0 }, { t.ratio_lo, t.bits.ratio })
    assert.equal(100 * (t.tensors[67].v.numel) + 100, t.tensors[68].theta.numel)
  end)
end)

describe("mptl plan", function()
  it("prints a table of groups, of operators, and the ratios", function()
    local result = process.mptl { "plan", "resnet18_cifar" }
    assert.equal(0, result.status)
    assert.matches(
      "^resnet18_cifar: 11173962 parameters, batch 128, policy demotion%(ratio=0.5, threshold=0.01%), formats hfp8\n", result.out)
    assert.matches("\n    5     33554432       82048     67272960  12.38%%  low\n", result.out)
    assert.matches("\ndemoted, in this order: 5 3 1 2 4\n", result.out)
    assert.matches("\nelements low: 52.57%% %(ratio_lo 0.5257%)\n", result.out)
    assert.matches("\nmemory of a training step: %d+%.%d MB emulated, %d+%.%d MB packed\n$", result.out)
  end)

  it("has the types of an operator's products in the table", function()
    -- forward its input times its weights, both FP(4,3,4); backward the incoming gradient, FP(6,9,0), times one of these
    local expected = { none = "f32", bf16 = "bf16/f32/f32", amx = "bf16/2xbf16/2xbf16" }
    for _, isa in ipairs(units.isas()) do
      local result = process.mptl({ "plan", "resnet18_cifar" }, { env = { MPTL_ISA = isa } })
      local products = result.out:match("\n   23 layer2.0.shortcut.0 conv2d           8  "
        .. "FP%(6,9,0%)  FP%(6,9,0%)  FP%(4,3,4%)  FP%(6,9,0%)   (%S+)\n")
      assert.equal(expected[units.units(isa)], products, isa)
    end
  end)
end)
