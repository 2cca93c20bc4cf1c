-- spec/cuda/layers, the convolutions and linear layers that spec/cuda/layers_on_gpu.c runs: all that models/ have, and no others.
local convolutions = require "support.convolutions"

-- Rows without their batch, which the file chooses.
local function kinds_of(rows)
  local kinds = {}
  for _, row in ipairs(rows) do kinds[row:gsub("^%d+ ", "")] = true end
  return kinds
end

local function rows_of_file()
  local rows = {}
  for line in io.lines(os.getenv "MPTL_ROOT" .. "/spec/cuda/layers") do
    if line:sub(1, 1) ~= "#" then rows[#rows + 1] = line end
  end
  return rows
end

describe("spec/cuda/layers", function()
  local rows = rows_of_file()
  local listed = kinds_of(rows)

  for _, model in ipairs(convolutions.models()) do
    it("has all layers of " .. model, function()
      for _, layer in ipairs(convolutions.layers(model, 16)) do
        local kind = table.concat(layer, " ", 2)
        assert(listed[kind], "missing, with a batch in front: " .. kind)
      end
    end)
  end

  it("has each of them once or at several batches, and nothing else", function()
    local found, seen = {}, {}
    for _, model in ipairs(convolutions.models()) do
      for _, layer in ipairs(convolutions.layers(model, 16)) do found[table.concat(layer, " ", 2)] = true end
    end
    for _, row in ipairs(rows) do
      assert(not seen[row], "twice: " .. row)
      seen[row] = true
      assert(found[row:gsub("^%d+ ", "")], "no model has " .. row)
    end
  end)

  it("begins with ResNet-18 at the batch it is trained with", function()
    for i, layer in ipairs(convolutions.layers("resnet18_cifar", 128)) do assert.equal(table.concat(layer, " "), rows[i]) end
  end)
end)
