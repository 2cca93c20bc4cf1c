/* Comparing gradients (mptl/compare.h).
 *
 *   core.compare_gradients({gradient=, reference=, parameter=, STATE=, ...},
 *     {optimizer="sgd", update={as for m:update}, group=0, updates=0}) -> gradient, update
 *     The arguments are tensors with equally many elements, STATE the names of the optimizer's
 * states. The results are tables {size=, absolute=}
 */
#include "bindings/bind.h"
#include "mptl/compare.h"

/* A tensor of the first table, in the host's memory. */
static const mptl_tensor *field_tensor(lua_State *L, const char *field) {
  lua_getfield(L, 1, field);
  if (!luaL_testudata(L, -1, "mptl.Tensor"))
    luaL_error(L, "compare_gradients: %s must be a tensor", field);
  return bind_host_tensor(L, -1); /* the table or the stack keeps it alive */
}

static void push_difference(lua_State *L, mptl_difference d) {
  lua_createtable(L, 0, 2);
  bind_set_number(L, "size", d.size);
  bind_set_number(L, "absolute", d.absolute);
}

/* The elements of a tensor. All tensors must have *n of them; SIZE_MAX: this is the first one, and
 * sets *n. */
static const float *elements(lua_State *L, const char *field, size_t *n) {
  const mptl_tensor *t = field_tensor(L, field);
  size_t here = mptl_tensor_numel(t);
  if (*n == SIZE_MAX) *n = here;
  if (here != *n)
    luaL_error(L, "compare_gradients: %s has %I elements, gradient has %I", field,
               (lua_Integer)here, (lua_Integer)*n);
  return t->data;
}

static int compare_gradients(lua_State *L) {
  static const char *const options[] = {"optimizer", "update", "group", "updates", NULL};
  size_t n = SIZE_MAX;
  lua_settop(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checktype(L, 2, LUA_TTABLE);
  bind_check_fields(L, 2, options);
  const mptl_optimizer *o = bind_optimizer_field(L, 2);
  const char *fields[MPTL_MAX_STATES + 4] = {"gradient", "reference", "parameter"};
  for (int k = 0; k < o->n_states; k++) fields[3 + k] = o->states[k];
  bind_check_fields(L, 1, fields);
  mptl_gradients g = {.gradient = elements(L, "gradient", &n)};
  g.reference = elements(L, "reference", &n);
  g.parameter = elements(L, "parameter", &n);
  for (int k = 0; k < o->n_states; k++) g.state[k] = elements(L, o->states[k], &n);
  g.n = n;
  lua_getfield(L, 2, "update");
  mptl_update update = bind_read_update(L, lua_gettop(L), o);
  mptl_difference in_gradient, in_update;
  bind_check(
      L, mptl_compare_gradients(&g, o, &update, (int)bind_opt_integer(L, 2, "group", 0),
                                bind_opt_integer(L, 2, "updates", 0), &in_gradient, &in_update));
  push_difference(L, in_gradient);
  push_difference(L, in_update);
  return 2;
}

void mptl_bind_compare(lua_State *L) {
  lua_pushcfunction(L, compare_gradients);
  lua_setfield(L, -2, "compare_gradients");
}
