--- Operators without parameters, as functions of symbolic values.
local Value = require "mptl.nn.value"
local misuse = require "mptl.misuse"

local M = {}

local function call(name, kind, x, attributes)
  return (Value.check(name, x).recorder:call(kind, { x }, { attributes = attributes }))
end

-- A loss whose only option is label smoothing.
local function loss(kind, x, options)
  misuse.check_fields(kind, options or {}, { "label_smoothing" })
  return call(kind, kind, x, options)
end

--- Rectified linear unit.
-- @param x a value
-- @return a value of the same shape
function M.relu(x)
  return call("relu", "relu", x)
end

--- Rectified linear unit that ends at 6.
-- @param x a value
-- @return a value of the same shape
function M.relu6(x)
  return call("relu6", "relu6", x)
end

--- 1 / (1 + exp(-x)).
-- @param x a value
-- @return a value of the same shape
function M.sigmoid(x)
  return call("sigmoid", "sigmoid", x)
end

--- The Gaussian error linear unit: x times the probability that a normally distributed number is
-- less than x.
-- @param x a value
-- @param approximate "none", the default, or "tanh": 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
-- @param name the operator's name; by default made from its kind
-- @return a value of the same shape
-- @usage nn.gelu(x, "tanh")
function M.gelu(x, approximate, name)
  local kind = ({ none = "gelu", tanh = "gelu_tanh" })[approximate or "none"]
  if not kind then misuse.raise("gelu: approximate: %s, accepted are none, tanh", misuse.text(approximate)) end
  return (Value.check("gelu", x).recorder:call(kind, { x }, { name = name }))
end

--- In training, zero with probability p, else x / (1 - p); in evaluation x.
-- @param x a value
-- @param p the probability; 0.5 by default
-- @return a value of the same shape
function M.dropout(x, p)
  return call("dropout", "dropout", x, { p = p })
end

--- The sum of two values of one shape; also spelled x + y.
-- @param x a value
-- @param y a value
-- @return their sum
function M.add(x, y)
  return Value.check("add", x) + y
end

--- The product, element by element, of two values of one shape; also spelled x * y.
-- @param x a value
-- @param y a value
-- @return their product
function M.mul(x, y)
  return Value.check("mul", x) * y
end

--- Average pooling.
-- @param x a value
-- @param kernel a number or {height, width}
-- @param stride likewise; the kernel by default
-- @param padding likewise; 0 by default
-- @param count_include_pad whether the padding counts as zeros (the default), or is left out of the average
-- @return a value
function M.avg_pool2d(x, kernel, stride, padding, count_include_pad)
  return call("avg_pool2d", "avgpool", x,
    { kernel = kernel, stride = stride or kernel, padding = padding, count_include_pad = count_include_pad })
end

--- Max pooling.
-- @param x a value
-- @param kernel a number or {height, width}
-- @param stride likewise; the kernel by default
-- @param padding likewise; 0 by default
-- @return a value
function M.max_pool2d(x, kernel, stride, padding)
  return call("max_pool2d", "maxpool", x, { kernel = kernel, stride = stride or kernel, padding = padding })
end

--- The average of each channel.
-- @param x a value of shape {c, h, w}
-- @return a flat value of c numbers
function M.mean(x)
  return call("mean", "mean", x)
end

--- The logarithm of softmax over the features of each sample.
-- @param x a flat value
-- @return a value of the same shape
function M.log_softmax(x)
  return call("log_softmax", "log_softmax", x)
end

--- Negative log likelihood loss: a network may end in it.
-- @param x a flat value: the logarithm of each class's probability
-- @param options {label_smoothing = s: the label's target is 1 - s + s / n, the targets of the n - 1
--   other classes are s / n; 0 by default}
-- @return the loss of each sample
function M.nll_loss(x, options)
  return loss("nll_loss", x, options)
end

--- Cross-entropy loss: log_softmax, unless x is its output, and nll_loss.
-- @param x a flat value: a score for each class
-- @param options as of nll_loss
-- @return the loss of each sample
-- @usage loss = function(y) return nn.cross_entropy(y, { label_smoothing = 0.1 }) end -- in a script
function M.cross_entropy(x, options)
  misuse.check_fields("cross_entropy", options or {}, { "label_smoothing" })
  if Value.check("cross_entropy", x).kind ~= "log_softmax" then x = M.log_softmax(x) end
  return M.nll_loss(x, options)
end

--- Mean squared error of each sample: the mean of (x - target)^2 over its n numbers. A class's target
-- is 1 for the label, 0 for others.
-- @param x a flat value
-- @param options as of nll_loss
-- @return the loss of each sample
-- @usage loss = nn.mse_loss -- in a script
function M.mse_loss(x, options)
  return loss("mse_loss", x, options)
end

--- The channels of several values, one after the other.
-- @param values list of values of one height and width
-- @param options {shuffle = groups of a channel shuffle of the result; 1, none, by default}: it costs nothing and has no tensors
-- of its own, as the method has it
-- @return a value
-- @usage nn.concat({ x, y }, { shuffle = 2 })
function M.concat(values, options)
  misuse.check_fields("concat", options or {}, { "shuffle" })
  if type(values) ~= "table" or Value.is(values) or #values == 0 then
    misuse.raise("concat: %s, must be a list of values: nn.concat{ x, y }", Value.is(values) and "a value" or type(values))
  end
  for _, x in ipairs(values) do Value.check("concat", x) end
  return (values[1].recorder:call("concat", values, { attributes = options }))
end

--- Some of the channels.
-- @param x a value
-- @param first the first channel, from 0
-- @param count how many
-- @return a value
function M.slice(x, first, count)
  return call("slice", "slice", x, { first = first, count = count })
end

--- The channels in several parts, of which each is a value.
-- @param x a value
-- @param ... the numbers of channels of the parts; what is left over is one more
-- @return the parts
-- @usage local a, b = nn.split(x, x.shape[1] // 2)
function M.split(x, ...)
  local parts, first, channels = {}, 0, Value.check("split", x).shape[1]
  for _, count in ipairs { ... } do
    parts[#parts + 1] = M.slice(x, first, count)
    first = first + count
  end
  if first < channels then parts[#parts + 1] = M.slice(x, first, channels - first) end
  return table.unpack(parts)
end

--- The channels of several groups, dealt out in turn: channel i of group g becomes channel i * groups + g. An operator with an
-- output of its own; behind a concat, its option shuffle does the same for nothing.
-- @param x a value
-- @param groups number of groups
-- @return a value of the same shape
function M.channel_shuffle(x, groups)
  return M.concat({ Value.check("channel_shuffle", x) }, { shuffle = groups })
end

--- A value as one row of numbers; a view, no operator.
-- @param x a value
-- @return the flat value
function M.flatten(x)
  Value.check("flatten", x)
  return Value.new(x.recorder, x.recorder.graph:flatten(x.id), x.kind)
end

return M
