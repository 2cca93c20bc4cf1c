/* Comparing gradients (mptl/measure.h).
 *
 *   core.compare_gradients({gradient=, reference=, parameter=, momentum=}, {momentum=0, weight_decay=0, loss_scale=1, first=false})
 *     -> gradient, update: tables {size =, absolute =}; the four are tensors of as many elements
 */
#include "bindings/bind.h"
#include "mptl/measure.h"

static const mptl_tensor *field_tensor(lua_State *L, const char *field) {
  lua_getfield(L, 1, field);
  if (!luaL_testudata(L, -1, "mptl.Tensor")) luaL_error(L, "compare_gradients: %s must be a tensor", field);
  return bind_host_tensor(L, -1); /* the table or the stack keeps it alive */
}

static void push_difference(lua_State *L, mptl_difference d) {
  lua_createtable(L, 0, 2);
  bind_set_number(L, "size", d.size);
  bind_set_number(L, "absolute", d.absolute);
}

static int compare_gradients(lua_State *L) {
  static const char *const tensors[] = {"gradient", "reference", "parameter", "momentum", NULL};
  static const char *const fields[] = {"momentum", "weight_decay", "loss_scale", "first", NULL};
  lua_settop(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  bind_check_fields(L, 1, tensors);
  bind_check_fields(L, 2, fields);
  const float *data[4];
  size_t n = 0;
  for (int i = 0; tensors[i] != NULL; i++) {
    const mptl_tensor *t = field_tensor(L, tensors[i]);
    if (i > 0 && mptl_tensor_numel(t) != n)
      luaL_error(L, "compare_gradients: %s has %I elements, gradient has %I", tensors[i], (lua_Integer)mptl_tensor_numel(t),
                 (lua_Integer)n);
    n = mptl_tensor_numel(t);
    data[i] = t->data;
  }
  mptl_gradients g = {.n = n, .gradient = data[0], .reference = data[1], .parameter = data[2], .momentum = data[3]};
  mptl_update update = {.momentum = bind_opt_number(L, 2, "momentum", 0),
                        .weight_decay = bind_opt_number(L, 2, "weight_decay", 0),
                        .loss_scale = bind_opt_number(L, 2, "loss_scale", 1)};
  mptl_difference in_gradient, in_update;
  bind_check(L, mptl_compare_gradients(&g, &update, bind_opt_boolean(L, 2, "first", 0), &in_gradient, &in_update));
  push_difference(L, in_gradient);
  push_difference(L, in_update);
  return 2;
}

void mptl_bind_measure(lua_State *L) {
  lua_pushcfunction(L, compare_gradients);
  lua_setfield(L, -2, "compare_gradients");
}
