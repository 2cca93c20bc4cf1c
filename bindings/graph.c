/* mptl.Graph: records a network. Values are integer ids; lua/mptl/nn wraps them.
 *
 *   g = core.graph()
 *   id = g:input{3, 32, 32}     shape of one sample
 *   id = g:add(kind, name, {ids...}, {kernel = 3, ...})
 *       attributes by name; a pair as {height, width}
 *   id = g:flatten(id)          a flat view
 *   g:mark_output(id)
 *   g:shape(id) -> {c, h, w} or {f}
 *   g:set_init("conv1.weight", "normal" | "uniform" | "constant", a, b)
 *   g:has_loss() -> whether it has a loss operator
 *   g:operators() -> {{index=, name=, kind=, inputs={operator indices}, numel=, gemm=, loss=,
 *       groups= channel groups, follows_inputs=, backward_reads_in=, backward_reads_out=,
 *       shared_out=, least_batch= least batch size to train with}, ...}
 *   g:parameters() -> {{name=, dims={...}, numel=, operator=, buffer=}, ...}
 * Operator indices count from 0, as in `mptl plan --json`.
 */
#include <string.h>

#include "bindings/bind.h"

#define GRAPH "mptl.Graph"

mptl_graph *bind_check_graph(lua_State *L, int index) {
  mptl_graph **box = luaL_checkudata(L, index, GRAPH);
  return *box;
}

static int graph_new(lua_State *L) {
  mptl_graph **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, GRAPH);
  bind_check(L, mptl_graph_create(box));
  return 1;
}

static int graph_gc(lua_State *L) {
  mptl_graph **box = luaL_checkudata(L, 1, GRAPH);
  mptl_graph_destroy(*box);
  *box = NULL;
  return 0;
}

static mptl_shape check_shape(lua_State *L, int index) {
  int size[3] = {1, 1, 1};
  luaL_checktype(L, index, LUA_TTABLE);
  lua_Integer n = luaL_len(L, index);
  if (n != 1 && n != 3)
    luaL_error(L, "shape of %I numbers, accepted are {c, h, w} and {features}", n);
  for (lua_Integer i = 0; i < n; i++) {
    lua_geti(L, index, i + 1);
    lua_Integer d = luaL_checkinteger(L, -1);
    if (d < 1 || d > 1 << 24) luaL_error(L, "shape: size %I, accepted are 1 to 16777216", d);
    size[i] = (int)d;
    lua_pop(L, 1);
  }
  return (mptl_shape){.ndim = (int)n, .c = size[0], .h = size[1], .w = size[2]};
}

static int graph_input(lua_State *L) {
  int value;
  mptl_shape shape = check_shape(L, 2);
  bind_check(L, mptl_graph_input(bind_check_graph(L, 1), &value, shape));
  lua_pushinteger(L, value);
  return 1;
}

static int graph_flatten(lua_State *L) {
  int value;
  mptl_graph *g = bind_check_graph(L, 1);
  bind_check(L, mptl_graph_flatten(g, &value, (int)luaL_checkinteger(L, 2)));
  lua_pushinteger(L, value);
  return 1;
}

static int takes(const mptl_op_kind *kind, const char *attribute) {
  for (int i = 0; kind->attributes && kind->attributes[i]; i++)
    if (strcmp(kind->attributes[i], attribute) == 0) return 1;
  return 0;
}

/* Reads the attribute value on top of the stack (number, boolean, {h, w}) into values; returns how
 * many. */
static int read_attribute(lua_State *L, const char *name, double values[2]) {
  if (lua_isboolean(L, -1)) {
    values[0] = lua_toboolean(L, -1);
    return 1;
  }
  if (lua_type(L, -1) == LUA_TNUMBER) {
    values[0] = lua_tonumber(L, -1);
    return 1;
  }
  if (!lua_istable(L, -1) || luaL_len(L, -1) != 2)
    luaL_error(L, "%s: %s, accepted are a number, a boolean or {height, width}", name,
               luaL_tolstring(L, -1, NULL));
  for (int i = 0; i < 2; i++) {
    lua_geti(L, -1, i + 1);
    values[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  return 2;
}

static int graph_add(lua_State *L) {
  mptl_graph *g = bind_check_graph(L, 1);
  const mptl_op_kind *kind = mptl_op_kind_find(luaL_checkstring(L, 2));
  if (kind == NULL) bind_check(L, MPTL_EINVAL);
  const char *name = luaL_checkstring(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  int inputs[MPTL_MAX_INPUTS], n = (int)luaL_len(L, 4);
  if (n > MPTL_MAX_INPUTS)
    luaL_error(L, "%s (%s): %d inputs, at most %d", name, kind->name, n, MPTL_MAX_INPUTS);
  for (int i = 0; i < n; i++) {
    lua_geti(L, 4, i + 1);
    inputs[i] = (int)luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  mptl_attributes attributes = mptl_attributes_default();
  if (!lua_isnoneornil(L, 5)) {
    luaL_checktype(L, 5, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 5)) {
      double values[2];
      if (lua_type(L, -2) != LUA_TSTRING || !takes(kind, lua_tostring(L, -2)))
        luaL_error(L, "%s (%s): does not take the attribute %s", name, kind->name,
                   luaL_tolstring(L, -2, NULL));
      const char *attribute = lua_tostring(L, -2);
      int count = read_attribute(L, attribute, values);
      mptl_status status = mptl_attributes_set(&attributes, attribute, count, values);
      if (status != MPTL_OK) bind_check(L, mptl_fail_in(status, "%s (%s)", name, kind->name));
      lua_pop(L, 1);
    }
  }
  int value;
  bind_check(L, mptl_graph_add(g, &value, kind, name, n, inputs, &attributes));
  lua_pushinteger(L, value);
  return 1;
}

static int graph_mark_output(lua_State *L) {
  bind_check(L, mptl_graph_mark_output(bind_check_graph(L, 1), (int)luaL_checkinteger(L, 2)));
  return 0;
}

static int graph_shape(lua_State *L) {
  mptl_graph *g = bind_check_graph(L, 1);
  lua_Integer id = luaL_checkinteger(L, 2);
  if (id < 0 || id >= g->n_values) luaL_error(L, "value %I: the graph has %d", id, g->n_values);
  mptl_shape s = g->values[id].shape;
  bind_push_integers(L, (int64_t[]){s.c, s.h, s.w}, s.ndim);
  return 1;
}

static int graph_set_init(lua_State *L) {
  static const char *const kinds[] = {"constant", "uniform", "normal", NULL};
  mptl_graph *g = bind_check_graph(L, 1);
  const char *param = luaL_checkstring(L, 2);
  mptl_init init = {(mptl_init_kind)luaL_checkoption(L, 3, NULL, kinds), luaL_checknumber(L, 4),
                    luaL_optnumber(L, 5, 0)};
  bind_check(L, mptl_graph_set_init(g, param, init));
  return 0;
}

static int graph_has_loss(lua_State *L) {
  lua_pushboolean(L, bind_check_graph(L, 1)->loss >= 0);
  return 1;
}

static int graph_operators(lua_State *L) {
  mptl_graph *g = bind_check_graph(L, 1);
  lua_createtable(L, g->n_ops, 0);
  for (int i = 0; i < g->n_ops; i++) {
    const mptl_op *op = &g->ops[i];
    lua_createtable(L, 0, 12);
    bind_set_integer(L, "index", i);
    bind_set_string(L, "name", op->name);
    bind_set_string(L, "kind", op->kind->name);
    bind_set_integer(L, "numel", (lua_Integer)mptl_shape_numel(g->values[op->out].shape));
    bind_set_boolean(L, "gemm", op->kind->gemm);
    bind_set_boolean(L, "loss", op->kind->loss);
    bind_set_integer(L, "groups", op->attr.groups);
    bind_set_boolean(L, "follows_inputs", op->kind->follows_inputs);
    bind_set_boolean(L, "backward_reads_in", op->kind->backward_reads_in);
    bind_set_boolean(L, "backward_reads_out", op->kind->backward_reads_out);
    bind_set_boolean(L, "shared_out", mptl_graph_shared_out(g, i));
    bind_set_integer(L, "least_batch", mptl_graph_least_batch(g, i));
    int64_t inputs[MPTL_MAX_INPUTS];
    for (int k = 0; k < op->n_in; k++) inputs[k] = mptl_producer(g, op, k);
    bind_push_integers(L, inputs, op->n_in);
    lua_setfield(L, -2, "inputs");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int graph_parameters(lua_State *L) {
  mptl_graph *g = bind_check_graph(L, 1);
  lua_createtable(L, g->n_params, 0);
  for (int i = 0; i < g->n_params; i++) {
    const mptl_param *p = &g->params[i];
    lua_createtable(L, 0, 5);
    bind_set_string(L, "name", p->name);
    bind_set_integer(L, "numel", (lua_Integer)p->numel);
    bind_set_integer(L, "operator", p->op);
    bind_set_boolean(L, "buffer", p->buffer);
    bind_push_integers(L, p->dims, p->ndim);
    lua_setfield(L, -2, "dims");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static const luaL_Reg methods[] = {
    {"input", graph_input},           {"add", graph_add},
    {"flatten", graph_flatten},       {"mark_output", graph_mark_output},
    {"shape", graph_shape},           {"set_init", graph_set_init},
    {"has_loss", graph_has_loss},     {"operators", graph_operators},
    {"parameters", graph_parameters}, {NULL, NULL},
};

void mptl_bind_graph(lua_State *L) {
  bind_new_type(L, GRAPH, methods, graph_gc);
  lua_pushcfunction(L, graph_new);
  lua_setfield(L, -2, "graph");
}
