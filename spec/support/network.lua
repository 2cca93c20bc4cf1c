--- Helpers of the specs that run networks: layouts, comparisons, programs in binary32.
local core = require "mptl.core"

local M = {}

local fp32 = { v = "fp32", dv = "fp32", theta = "fp32", dtheta = "fp32" }
M.hfp8 = {
  high = { v = "FP(6,9,0)", dv = "FP(6,9,0)", theta = "FP(6,9,0)", dtheta = "FP(6,9,0)" },
  low = { v = "FP(4,3,4)", dv = "FP(5,2,0)", theta = "FP(4,3,4)", dtheta = "FP(6,9,0)" },
}
M.fp32 = { high = fp32, low = fp32 }

--- NCHW list to NHWC list (or back, with the dims' roles exchanged).
function M.nhwc(data, n, c, h, w)
  local out = {}
  for i = 0, n - 1 do
    for y = 0, h * w - 1 do
      for k = 0, c - 1 do out[#out + 1] = data[(i * c + k) * h * w + y + 1] end
    end
  end
  return out
end

--- NHWC list to NCHW list.
function M.nchw(data, n, c, h, w)
  return M.nhwc(data, n, h * w, c, 1)
end

--- A tensor of images from a fixture's NCHW tensor, and its shape for graph:input.
function M.images(t)
  local d = t.dims
  if #d == 2 then return core.tensor({ d[1], d[2] }, t.data), { d[2] } end
  return core.tensor({ d[1], d[3], d[4], d[2] }, M.nhwc(t.data, d[1], d[2], d[3], d[4])), { d[2], d[3], d[4] }
end

--- Fails unless got is within tolerance of want, element by element, relative to want's largest magnitude.
function M.assert_close(want, got, tolerance, what)
  assert(#want == #got, ("%s: %d values, expected %d"):format(what, #got, #want))
  local scale = 1e-30
  for i = 1, #want do scale = math.max(scale, math.abs(want[i])) end
  for i = 1, #want do
    local off = math.abs(want[i] - got[i]) / scale
    if not (off <= tolerance) then
      error(("%s: element %d is %.9g, expected %.9g (off by %.2g of the largest, %.3g)"):format(
        what, i, got[i], want[i], off, scale), 2)
    end
  end
end

--- A deterministic sequence of numbers in [-1, 1).
function M.numbers(n, seed)
  local x, out = seed or 1, {}
  for i = 1, n do
    x = (x * 6364136223846793005 + 1442695040888963407)
    out[i] = (x >> 40) / 2 ^ 23 - 1
  end
  return out
end

--- Product of a list.
function M.product(t)
  local n = 1
  for _, d in ipairs(t) do n = n * d end
  return n
end

--- Appends a head that makes the loss sum(y * dy): a linear layer whose row i is -dy of sample i, and each sample's label its
-- own row.
-- Gradients then are those of sum(y * dy) under a loss scale of n samples.
-- @return a function that sets the head's weights in a model; labels
function M.cotangent_head(graph, y, n, dy)
  local shape = graph:shape(y)
  local numel = M.product(shape)
  if #shape == 3 then y = graph:flatten(y) end
  graph:add("nll_loss", "loss", { graph:add("linear", "head", { y }, { out = n, bias = false }) })
  local labels, weights = {}, {}
  for i = 1, n do labels[i] = i - 1 end
  for i = 1, n * numel do weights[i] = -dy[i] end
  return function(model) model:tensor("head.weight"):copy(core.tensor({ n, numel }, weights)) end, labels
end

--- A list with the values of a tensor in PyTorch's order: images NCHW.
function M.values(tensor)
  local d = tensor:size()
  if #d ~= 4 then return tensor:totable() end
  return M.nchw(tensor:totable(), d[1], d[4], d[2], d[3])
end

--- The network of fixtures/resnet_tiny*.lua: see fixtures/README.md.
function M.tiny_resnet()
  local g = core.graph()
  local function conv_bn(name, bn, x, out, kernel, stride)
    x = g:add("conv2d", name, { x }, { out = out, kernel = kernel, stride = stride, padding = kernel // 2, bias = false })
    return g:add("batchnorm2d", bn, { x })
  end
  local function block(name, x, out, stride)
    local y = g:add("relu", name .. ".relu", { conv_bn(name .. ".conv1", name .. ".bn1", x, out, 3, stride) })
    y = conv_bn(name .. ".conv2", name .. ".bn2", y, out, 3, 1)
    if stride ~= 1 then x = conv_bn(name .. ".shortcut.0", name .. ".shortcut.1", x, out, 1, stride) end
    return g:add("relu", name .. ".relu_2", { g:add("add", name .. ".add", { y, x }) })
  end
  local x = g:add("relu", "relu", { conv_bn("conv1", "bn1", g:input { 3, 8, 8 }, 3, 3, 1) })
  x = block("layer2.0", block("layer1.0", x, 3, 1), 4, 2)
  x = g:add("avgpool", "avgpool", { x }, { kernel = 4, stride = 4 })
  x = g:add("linear", "linear", { g:flatten(x) }, { out = 5 })
  g:add("nll_loss", "nll_loss", { g:add("log_softmax", "log_softmax", { x }) })
  return g
end

--- A network of the operators that M.tiny_resnet has not: grouped and depthwise convolutions, relu6, maxpool (windows that
-- overlap), slices that share out a value and slices that overlap, sigmoid, both forms of gelu, mul, concat with a shuffle,
-- dropout, mean, label smoothing.
function M.tiny_mixture()
  local g = core.graph()
  local function conv_bn(name, x, options)
    return g:add("batchnorm2d", "bn" .. name, { g:add("conv2d", "conv" .. name, { x }, options) })
  end
  local x = conv_bn("1", g:input { 3, 8, 8 }, { out = 8, kernel = 3, padding = 1 })
  x = g:add("maxpool", "maxpool", { g:add("relu6", "relu6", { x }) }, { kernel = 3, stride = 2, padding = 1 })
  local a = g:add("slice", "a", { x }, { count = 3 })
  local b = g:add("slice", "b", { x }, { first = 3, count = 5 })
  b = conv_bn("2", b, { out = 10, kernel = 3, padding = 1, groups = 5, bias = false })
  x = g:add("concat", "concat1", { g:add("gelu", "gelu", { b }), a })
  local gate = g:add("sigmoid", "sigmoid", { g:add("slice", "c", { x }, { first = 1, count = 6 }) })
  x = g:add("mul", "mul", { gate, g:add("slice", "d", { x }, { first = 6, count = 6 }) })
  x = g:add("dropout", "dropout", { g:add("gelu_tanh", "gelu_tanh", { x }) }, { p = 0.25 })
  x = conv_bn("3", g:add("concat", "concat2", { x, a, gate, a }, { shuffle = 3 }), { out = 9, stride = 2, groups = 3 })
  x = g:add("linear", "linear", { g:add("mean", "mean", { x }) }, { out = 5 })
  g:add("nll_loss", "nll_loss", { g:add("log_softmax", "log_softmax", { x }) }, { label_smoothing = 0.1 })
  return g
end

--- A network with layer norms of the channels of each pixel, with and without bias, and of flat values.
function M.tiny_layernorms()
  local g = core.graph()
  local x = g:add("conv2d", "conv1", { g:input { 3, 8, 8 } }, { out = 6, kernel = 3, stride = 2, padding = 1 })
  x = g:add("layernorm", "ln1", { x })
  local y = g:add("conv2d", "conv2", { x }, { out = 6, kernel = 1 })
  y = g:add("layernorm", "ln2", { y }, { eps = 1e-2, bias = false })
  y = g:add("sigmoid", "sigmoid", { g:add("conv2d", "conv3", { y }, { out = 6, kernel = 1 }) })
  x = g:add("mean", "mean", { g:add("add", "add", { x, y }) })
  x = g:add("layernorm", "ln3", { g:add("linear", "linear1", { x }, { out = 40 }) })
  x = g:add("linear", "linear2", { x }, { out = 5 })
  g:add("nll_loss", "nll_loss", { g:add("log_softmax", "log_softmax", { x }) })
  return g
end

return M
