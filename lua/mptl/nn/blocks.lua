--- Parts that several networks have in common, and rules for their widths.
local functional = require "mptl.nn.functional"
local layers = require "mptl.nn.layers"
local misuse = require "mptl.misuse"
local Module = require "mptl.nn.module"

local M = {}

--- A convolution, its batch norm and, with relu = true, a ReLU. The padding is kernel // 2, so that
-- the image keeps its size in stride 1. The two or three layers can be fields of a module, or the
-- last elements of a Sequential.
-- @param options {input channels, output channels, kernel = 1, stride = 1, groups = 1 (channel
--   groups), bias = false, relu = false, init = nil}
-- @return the layers
-- @usage self.conv1, self.bn1 = nn.conv_bn { 16, 32, kernel = 3 }
function M.conv_bn(options)
  misuse.check_fields("conv_bn", options, { "kernel", "stride", "groups", "bias", "relu", "init" })
  local kernel = options.kernel or 1
  if math.type(kernel) ~= "integer" or kernel % 2 == 0 then
    misuse.raise("conv_bn: kernel %s, accepted are odd whole numbers", tostring(kernel))
  end
  local conv = layers.Conv2d {
    options[1], options[2], kernel = kernel, stride = options.stride, padding = kernel // 2, groups = options.groups,
    bias = options.bias or false, init = options.init,
  }
  local bn = layers.BatchNorm2d(options[2])
  if options.relu then return conv, bn, layers.ReLU() end
  return conv, bn
end

--- The unit of ShuffleNet-v2 (Ma and others, "ShuffleNet V2", 2018, figure 3 c and d). In stride 1,
-- one half of the channels does not change and the other half goes through three convolutions. In
-- stride 2, two branches read all channels and halve the image. The outputs of both branches are
-- concatenated, and their channels shuffled.
M.ShuffleUnit = Module.class "ShuffleUnit"
M.ShuffleUnit.usage = "nn.ShuffleUnit{ input, output, stride = 1, flat = false }: layers are named branch1.0, branch1.1, ...; "
  .. "flat: conv1, bn1, conv2, ..."

-- A branch whose layers are fields of the module: conv and bn with numbers from first on.
-- convolutions: list of options of conv_bn. Returns a function of a value.
local function flat_branch(module, convolutions, first)
  local children = {}
  for i, options in ipairs(convolutions) do
    local conv, bn, relu = M.conv_bn(options)
    module["conv" .. first + i - 1], module["bn" .. first + i - 1] = conv, bn
    table.move({ conv, bn, relu }, 1, 3, #children + 1, children)
  end
  return function(x)
    for _, child in ipairs(children) do x = child(x) end
    return x
  end
end

-- A branch as a Sequential.
local function branch(convolutions)
  local sequence = layers.Sequential {}
  for _, options in ipairs(convolutions) do
    for _, layer in ipairs { M.conv_bn(options) } do sequence:append(layer) end
  end
  return sequence
end

-- Checks the options of a ShuffleUnit. Returns input channels, output channels and stride.
local function check_unit(options)
  misuse.check_fields("ShuffleUnit", options, { "stride", "flat" })
  local input, output, stride = options[1], options[2], options.stride or 1
  for i, name in ipairs { "input channels", "output channels" } do
    if math.tointeger(options[i]) == nil then
      misuse.raise("ShuffleUnit: the number of %s is %s, must be a whole number", name, tostring(options[i]))
    end
  end
  if math.type(stride) ~= "integer" or stride < 1 then
    misuse.raise("ShuffleUnit: stride %s, accepted are whole numbers from 1", tostring(stride))
  end
  if output % 2 ~= 0 or stride == 1 and input ~= output then
    misuse.raise("ShuffleUnit: %s channels to %s in stride %s, accepted are an even output, in stride 1 the same as the input",
      input, output, stride)
  end
  return input, output, stride
end

function M.ShuffleUnit:init(options)
  local input, output, stride = check_unit(options)
  local half = output // 2
  local function depthwise(channels) return { channels, channels, kernel = 3, stride = stride, groups = channels } end
  local left = stride > 1 and { depthwise(input), { input, half, relu = true } } or {}
  local right = { { stride > 1 and input or half, half, relu = true }, depthwise(half), { half, half, relu = true } }
  self.half = stride == 1 and half
  self.branch1 = options.flat and flat_branch(self, left, 1) or branch(left)
  self.branch2 = options.flat and flat_branch(self, right, #left + 1) or branch(right)
end

function M.ShuffleUnit:forward(x)
  local left, right = x, x
  if self.half then left, right = functional.split(x, self.half) end
  return functional.concat({ self.branch1(left), self.branch2(right) }, { shuffle = 2 })
end

--- The nearest multiple of divisor to a width, but at least divisor and at least 0.9 width. This is
-- MobileNet's rule for scaled widths.
-- @param width a number
-- @param divisor a whole number
-- @return a whole number
-- @usage nn.divisible(64 * 0.25, 4) --> 16
function M.divisible(width, divisor)
  local n = math.max(divisor, math.floor((width + divisor / 2) / divisor) * divisor)
  if n < 0.9 * width then n = n + divisor end
  return math.tointeger(n)
end

--- A scaled width: about width * multiplier, divisible by 8, or by 4 for multipliers up to 0.25.
-- @param width the width for the multiplier 1
-- @param multiplier a number
-- @return a whole number
-- @usage nn.scaled(64, 0.1) --> 8
function M.scaled(width, multiplier)
  if type(multiplier) ~= "number" or not (multiplier > 0 and multiplier < math.huge) then
    misuse.raise("nn.scaled: multiplier %s, must be a number above 0", tostring(multiplier))
  end
  return M.divisible(width * multiplier, multiplier <= 0.25 and 4 or 8)
end

-- A list with every width scaled, also those in lists in it.
local function scale_all(list, multiplier)
  local result = {}
  for i, width in ipairs(list) do
    result[i] = type(width) == "table" and scale_all(width, multiplier) or M.scaled(width, multiplier)
  end
  return result
end

-- The list with the last number: the list, or the last one of the lists in it.
local function last_list(list)
  return type(list[#list]) == "table" and last_list(list[#list]) or list
end

--- The widths of a network for a multiplier, if a table lists them for some multipliers. Other
-- multipliers scale the widths listed for 1, except the last one, the number of features that are
-- classified: it is taken from the next smaller multiplier in the table.
-- @param listed table: multiplier -> list of widths, or of lists of widths
-- @param multiplier a number
-- @return list of the same form
-- @usage nn.widths({ [0.5] = { 56, 1024 }, [1] = { 116, 1024 } }, 0.75) --> { 88, 1024 }
function M.widths(listed, multiplier)
  if listed[multiplier] then return listed[multiplier] end
  local result, below = scale_all(listed[1], multiplier), nil
  for other in pairs(listed) do
    if other < multiplier and other > (below or 0) then below = other end
  end
  local from, to = last_list(listed[below or 1]), last_list(result)
  to[#to] = from[#from]
  return result
end

return M
