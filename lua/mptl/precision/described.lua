--- The described graph: what a policy sees and changes. Its objects read the engine's assignment
-- when asked, so that they are always up to date, also during training.
--
--   graph:groups()     list of groups: {index, numel, activations, parameters, low, demote(), promote()}
--   graph:operators()  list of operators in execution order: {index, name, kind, gemm, groups,
--                      follows_inputs, inputs, consumers, shared_out, group, v, dv, theta, dtheta}
--                      groups: a convolution's channel groups, else 1
--                      shared_out: whether the consumers are slices, each with its own channels
--                      theta, dtheta: nil for operators without parameters
--   tensors            {role, operator, group, numel, format, is_low, set(format), low(), high()}
--   graph:group(index), graph:operator(name)
--   graph:ratio_lo()   share of the elements that are low
--   graph:ratios()     both ratios; graph:measure() is the same
-- Indices count from 0, as in `mptl plan`.
local candidates = require "mptl.precision.candidates"
local misuse = require "mptl.misuse"

local Graph, Group, Operator, Tensor = {}, {}, {}, {}

local function changed(graph)
  local values = misuse.values(graph)
  values._changes = values._changes + 1
end

-- Tensors

--- Gives the tensor a format. It counts as low when the format has fewer bits than its high
-- candidate.
function Tensor:set(format)
  if type(format) ~= "string" then
    misuse.raise("%s of %s: format %s, must be a string", self.role, self.operator.name, tostring(format))
  end
  misuse.call(self._assignment.set, self._assignment, self.operator.index, self.role, format)
  changed(self._graph)
end

--- Gives the tensor the low candidate format of its role.
function Tensor:low()
  misuse.call(self._assignment.set_low, self._assignment, self.operator.index, self.role, true)
  changed(self._graph)
end

--- Gives the tensor the high candidate format of its role.
function Tensor:high()
  misuse.call(self._assignment.set_low, self._assignment, self.operator.index, self.role, false)
  changed(self._graph)
end

-- Operators

--- The list of the operator's tensors: v, dv and, if it has parameters, theta, dtheta.
function Operator:tensors()
  local list = {}
  for _, role in ipairs(candidates.roles) do list[#list + 1] = self[role] end
  return list
end

-- Groups

local function set_group(group, low)
  local graph = group._graph
  misuse.call(graph._assignment.set_group, graph._assignment, group.index, low)
  changed(graph)
  graph._demoted[group.index] = low and graph._changes or nil
end

--- Makes all tensors of the group low.
function Group:demote()
  set_group(self, true)
end

--- Makes all tensors of the group high.
function Group:promote()
  set_group(self, false)
end

-- The graph

--- The groups, in a new list, which the caller may sort.
function Graph:groups()
  return table.move(self._groups, 1, #self._groups, 1, {})
end

--- A group by its index, from 0.
function Graph:group(index)
  local group = math.type(index) == "integer" and self._groups[index + 1]
  return group or misuse.raise("group %s: the graph has groups 0 to %d", tostring(index), #self._groups - 1)
end

--- The operators in execution order, in a new list.
function Graph:operators()
  return table.move(self._operators, 1, #self._operators, 1, {})
end

--- An operator by its name ("layer1.0.conv1") or its index, from 0.
function Graph:operator(name)
  local op = self._by_name[name] or (math.type(name) == "integer" and self._operators[name + 1])
  if op then return op end
  misuse.raise("operator %s: the graph has none of that name%s", tostring(name),
    misuse.suggest(tostring(name), misuse.names(self._by_name)))
end

--- Every tensor of every operator, in execution order.
function Graph:tensors()
  local list = {}
  for _, op in ipairs(self._operators) do
    for _, tensor in ipairs(op:tensors()) do list[#list + 1] = tensor end
  end
  return list
end

--- The share of low elements among all elements.
function Graph:ratio_lo()
  return self:ratios().ratio_lo
end

--- Both ratios, and what they are made from: {elements, elements_low, ratio_lo, bits_all_high,
-- bits_now, bits_ratio}.
function Graph:ratios()
  return self._assignment:ratios()
end

--- An older name of Graph:ratios.
Graph.measure = Graph.ratios

--- The indices of the demoted groups, in the order of demotion.
function Graph:order()
  local order, demoted = {}, self._demoted
  for index in pairs(demoted) do order[#order + 1] = index end
  table.sort(order, function(a, b) return demoted[a] < demoted[b] end)
  return order
end

--- The number of changes made through this object. It shows whether a hook changed something.
function Graph:changes()
  return self._changes
end

--- The batch size for which elements are counted.
function Graph:batch()
  return self._assignment:batch()
end

-- Classes of the objects: to read an unknown field is an error

local tensor_mt = misuse.strict("tensor", Tensor, {
  format = function(self) return (self._assignment:get(self.operator.index, self.role)) end,
  is_low = function(self) return (select(2, self._assignment:get(self.operator.index, self.role))) end,
}, { "role", "operator", "group", "numel" }, {
  format = "tensor:set(FORMAT), tensor:low(), tensor:high()", is_low = "tensor:low(), tensor:high(), tensor:set(FORMAT)",
})

local operator_mt = misuse.strict("operator", Operator, {}, {
  "index", "name", "kind", "gemm", "groups", "follows_inputs", "inputs", "consumers", "shared_out", "group", "v", "dv", "theta",
  "dtheta",
})

local group_mt = misuse.strict("group", Group, {
  low = function(self) return self._graph._assignment:is_low(self.index) end,
}, { "index", "numel", "activations", "parameters" }, { low = "group:demote(), group:promote()" })

local graph_mt = misuse.strict("graph", Graph, {}, {})

function tensor_mt:__tostring()
  return ("%s of %s: %s, %d elements, group %d"):format(self.role, self.operator.name, self.format, self.numel, self.group.index)
end

function operator_mt:__tostring()
  return ("operator %d %s (%s), group %d"):format(self.index, self.name, self.kind, self.group.index)
end

function group_mt:__tostring()
  return ("group %d: %d elements, %s"):format(self.index, self.numel, self.low and "low" or "high")
end

function graph_mt:__tostring()
  return ("graph of %d operators in %d groups, %.2f%% of the elements low"):format(#self._operators, #self._groups,
    100 * self:ratio_lo())
end

local M = {}

local function describe_groups(self, assignment, groups)
  for i, g in ipairs(assignment:groups()) do
    groups[i] = misuse.object(group_mt, {
      _graph = self, index = g.index, numel = g.numel, activations = g.activations, parameters = g.parameters,
    })
  end
end

-- An operator of the engine's graph, with its tensors; its inputs and consumers are still missing.
local function describe_operator(self, assignment, groups, op)
  local values = {
    index = op.index, name = op.name, kind = op.kind, gemm = op.gemm, groups = op.groups,
    follows_inputs = op.follows_inputs, shared_out = op.shared_out,
  }
  local described = misuse.object(operator_mt, values)
  for _, role in ipairs(candidates.roles) do
    local format, _, numel, group = assignment:get(op.index, role)
    if format then
      values[role] = misuse.object(tensor_mt, {
        _graph = self, _assignment = assignment,
        role = role, operator = described, numel = numel, group = groups[group + 1],
      })
    end
  end
  values.group = values.v.group
  return described, values
end

--- Describes a graph with an assignment.
-- @param graph the engine's graph
-- @param assignment the engine's assignment for it
-- @return the described graph
function M.describe(graph, assignment)
  local groups, operators, by_name = {}, {}, {}
  local self = misuse.object(graph_mt, {
    _assignment = assignment, _groups = groups, _operators = operators, _by_name = by_name, _demoted = {}, _changes = 0,
  })
  describe_groups(self, assignment, groups)
  local consumers = {}
  for i, op in ipairs(graph:operators()) do
    local described, values = describe_operator(self, assignment, groups, op)
    local inputs = {}
    for k, index in ipairs(op.inputs) do
      inputs[k] = operators[index + 1]
      table.insert(consumers[index + 1], described)
    end
    consumers[i] = {}
    values.inputs = misuse.read_only("operator.inputs", inputs)
    values.consumers = misuse.read_only("operator.consumers", consumers[i])
    operators[i], by_name[op.name] = described, described
  end
  return self
end

return M
