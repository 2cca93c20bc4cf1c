--- What networks are made of again and again.
local layers = require "mptl.nn.layers"
local misuse = require "mptl.misuse"

local M = {}

--- A convolution that keeps the image's size (but for its stride), its batch normalisation and, if wanted, a ReLU: two or three
-- layers, for as many fields of a module, or the last elements of a Sequential.
-- @param options {input channels, output channels, kernel = 1, stride = 1, groups = 1, bias = false, relu = false, init = nil}
-- @return the layers
-- @usage self.conv1, self.bn1 = nn.conv_bn{ 16, 32, kernel = 3 }
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

--- The nearest multiple of divisor, at least divisor, and never below 0.9 width (MobileNet's rule for scaled widths).
-- @param width a number
-- @param divisor a whole number
-- @return a whole number
-- @usage nn.divisible(64 * 0.25, 4) --> 16
function M.divisible(width, divisor)
  local n = math.max(divisor, math.floor((width + divisor / 2) / divisor) * divisor)
  if n < 0.9 * width then n = n + divisor end
  return math.tointeger(n)
end

--- A width under a multiplier: divisible by 8, by 4 for narrow networks (multipliers of at most 0.25).
-- @param width of the network of multiplier 1
-- @param multiplier a number
-- @return a whole number
-- @usage nn.scaled(64, 0.1) --> 8
function M.scaled(width, multiplier)
  return M.divisible(width * multiplier, multiplier <= 0.25 and 4 or 8)
end

return M
