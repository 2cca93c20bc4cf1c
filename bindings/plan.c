/* mptl.Assignment: the format of every tensor of training.
 *
 *   a = core.assignment(graph, batch, {high={v=F, dv=F, theta=F, dtheta=F}, low={...}})   all high
 *   a:set_low(operator, role, low)  a:set(operator, role, format)  a:set_group(group, low)
 *   a:get(operator, role) -> format, low, numel, group   (nil if the operator has no such tensor)
 *   a:groups() -> { {index=, activations=, parameters=, numel=, low=}, ... }
 *   a:is_low(group) -> whether the group was demoted
 *   a:ratios() -> {elements=, elements_low=, ratio_lo=, bits_all_high=, bits_now=, bits_ratio=}
 *   a:batch()
 * Operators and groups count from 0; roles are "v", "dv", "theta", "dtheta"; F is a format's
 * name. */
#include "bindings/bind.h"

#define ASSIGNMENT "mptl.Assignment"

static const char *const roles[] = {"v", "dv", "theta", "dtheta", NULL};

mptl_assignment *bind_check_assignment(lua_State *L, int index) {
  mptl_assignment **box = luaL_checkudata(L, index, ASSIGNMENT);
  return *box;
}

static void read_formats(lua_State *L, const char *set, mptl_format formats[MPTL_ROLES]) {
  if (lua_getfield(L, 3, set) != LUA_TTABLE)
    luaL_error(L, "candidates: %s must be a table of formats by role", set);
  for (int i = 0; i < MPTL_ROLES; i++) {
    if (lua_getfield(L, -1, roles[i]) != LUA_TSTRING)
      luaL_error(L, "candidates: %s.%s must be a format", set, roles[i]);
    bind_check(L, mptl_format_parse(&formats[i], lua_tostring(L, -1)));
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

static int assignment_new(lua_State *L) {
  mptl_candidates candidates;
  mptl_graph *graph = bind_check_graph(L, 1);
  lua_Integer batch = luaL_checkinteger(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  read_formats(L, "high", candidates.high);
  read_formats(L, "low", candidates.low);
  if (batch > 1 << 24) luaL_error(L, "batch: %I, accepted are 1 to 16777216", batch);
  mptl_assignment **box = lua_newuserdatauv(L, sizeof *box, 1);
  *box = NULL;
  luaL_setmetatable(L, ASSIGNMENT);
  bind_check(L, mptl_assignment_create(box, graph, (int)batch, &candidates));
  lua_pushvalue(L, 1); /* the assignment borrows the graph */
  lua_setiuservalue(L, -2, 1);
  return 1;
}

static int assignment_gc(lua_State *L) {
  mptl_assignment **box = luaL_checkudata(L, 1, ASSIGNMENT);
  mptl_assignment_destroy(*box);
  *box = NULL;
  return 0;
}

static int assignment_set_low(lua_State *L) {
  mptl_assignment *a = bind_check_assignment(L, 1);
  luaL_checktype(L, 4, LUA_TBOOLEAN);
  bind_check(L, mptl_assignment_set_low(a, (int)luaL_checkinteger(L, 2),
                                        (mptl_role)luaL_checkoption(L, 3, NULL, roles),
                                        lua_toboolean(L, 4)));
  return 0;
}

static int assignment_set(lua_State *L) {
  mptl_assignment *a = bind_check_assignment(L, 1);
  bind_check(L, mptl_assignment_set(a, (int)luaL_checkinteger(L, 2),
                                    (mptl_role)luaL_checkoption(L, 3, NULL, roles),
                                    bind_check_format(L, 4)));
  return 0;
}

static int assignment_set_group(lua_State *L) {
  mptl_assignment *a = bind_check_assignment(L, 1);
  luaL_checktype(L, 3, LUA_TBOOLEAN);
  bind_check(L, mptl_assignment_set_group(a, (int)luaL_checkinteger(L, 2), lua_toboolean(L, 3)));
  return 0;
}

static int assignment_get(lua_State *L) {
  mptl_assignment *a = bind_check_assignment(L, 1);
  lua_Integer op = luaL_checkinteger(L, 2);
  int role = luaL_checkoption(L, 3, NULL, roles);
  if (op < 0 || op >= a->n_ops)
    luaL_error(L, "operator %I: the graph has operators 0 to %d", op, a->n_ops - 1);
  const mptl_assigned *t = &a->tensors[op][role];
  char name[32];
  if (t->numel == 0) return 0;
  lua_pushstring(L, mptl_format_print(t->format, name, sizeof name));
  lua_pushboolean(L, t->low);
  lua_pushinteger(L, (lua_Integer)t->numel);
  lua_pushinteger(L, t->group);
  return 4;
}

static int assignment_groups(lua_State *L) {
  mptl_assignment *a = bind_check_assignment(L, 1);
  lua_createtable(L, a->n_groups, 0);
  for (int i = 0; i < a->n_groups; i++) {
    lua_createtable(L, 0, 5);
    bind_set_integer(L, "index", i);
    bind_set_integer(L, "activations", (lua_Integer)a->groups[i].activations);
    bind_set_integer(L, "parameters", (lua_Integer)a->groups[i].parameters);
    bind_set_integer(L, "numel", (lua_Integer)a->groups[i].numel);
    bind_set_boolean(L, "low", a->groups[i].low);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int assignment_is_low(lua_State *L) {
  mptl_assignment *a = bind_check_assignment(L, 1);
  lua_Integer group = luaL_checkinteger(L, 2);
  if (group < 0 || group >= a->n_groups)
    luaL_error(L, "group %I: the graph has groups 0 to %d", group, a->n_groups - 1);
  lua_pushboolean(L, a->groups[group].low);
  return 1;
}

static int assignment_ratios(lua_State *L) {
  mptl_ratios r = mptl_assignment_ratios(bind_check_assignment(L, 1));
  lua_createtable(L, 0, 6);
  bind_set_integer(L, "elements", (lua_Integer)r.elements);
  bind_set_integer(L, "elements_low", (lua_Integer)r.elements_low);
  bind_set_integer(L, "bits_all_high", (lua_Integer)r.bits_all_high);
  bind_set_integer(L, "bits_now", (lua_Integer)r.bits_now);
  bind_set_number(L, "ratio_lo", r.ratio_lo);
  bind_set_number(L, "bits_ratio", r.bits_ratio);
  return 1;
}

static int assignment_batch(lua_State *L) {
  lua_pushinteger(L, bind_check_assignment(L, 1)->batch);
  return 1;
}

static const luaL_Reg methods[] = {
    {"set_low", assignment_set_low},
    {"set", assignment_set},
    {"set_group", assignment_set_group},
    {"get", assignment_get},
    {"groups", assignment_groups},
    {"is_low", assignment_is_low},
    {"ratios", assignment_ratios},
    {"batch", assignment_batch},
    {NULL, NULL},
};

void mptl_bind_plan(lua_State *L) {
  bind_new_type(L, ASSIGNMENT, methods, assignment_gc);
  lua_pushcfunction(L, assignment_new);
  lua_setfield(L, -2, "assignment");
}
