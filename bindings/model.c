/* mptl.Model: the parameters of a network, its optimizer state, and the update.
 *
 *   m = core.model(graph, {seed=1, device="cpu", optimizer="sgd",
 *     parameter_groups={[parameter] = group, ...}})   groups count from 0, which is the default
 *   m:tensor(name) m:grad(name) m:state(state, name) -> Tensor: not a copy, in the device's memory,
 *     in PyTorch's order; state is one of the optimizer's states: "momentum"
 *   m:device() -> name   m:optimizer() -> name
 *   m:names() -> {name, ...} parameters and buffers in graph order
 *   m:updates() -> how many updates were made   m:set_updates(n)
 *   m:update{SETTING=, ..., groups={ {SETTING=, ...}, ... }, loss_scale=1, clip_norm=0,
 *     skip_nonfinite=true}   SETTING are the optimizer's settings, such as lr: of parameter group
 * 0, and in `groups` of groups 1, 2, .... The default of a setting is its value in group 0, and
 *     there the optimizer's default
 *   m:gradient_norm() -> of the last update that clips; 0 before
 *   core.optimizers() -> { {name=, states={name, ...},
 *     settings={ {name=, usual=, least=, most=}, ... }}, ... }
 */
#include <math.h>
#include <string.h>

#include "bindings/bind.h"
#include "mptl/program.h"

#define MODEL "mptl.Model"

mptl_model *bind_check_model(lua_State *L, int index) {
  return *(mptl_model **)luaL_checkudata(L, index, MODEL);
}

/* ---- Optimizers ---- */

const mptl_optimizer *bind_optimizer_field(lua_State *L, int index) {
  const mptl_optimizer *optimizer =
      mptl_optimizer_find(bind_opt_string(L, index, "optimizer", "sgd"));
  if (optimizer == NULL) bind_check(L, MPTL_EINVAL);
  return optimizer;
}

static void push_settings(lua_State *L, const mptl_optimizer *o) {
  lua_createtable(L, o->n_settings, 0);
  for (int i = 0; i < o->n_settings; i++) {
    const mptl_optimizer_setting *s = &o->settings[i];
    lua_createtable(L, 0, 4);
    bind_set_string(L, "name", s->name);
    bind_set_number(L, "usual", s->usual);
    bind_set_number(L, "least", s->least);
    bind_set_number(L, "most", s->most);
    lua_rawseti(L, -2, i + 1);
  }
}

static int optimizers(lua_State *L) {
  lua_newtable(L);
  for (size_t id = 0; mptl_optimizer_at(id) != NULL; id++) {
    const mptl_optimizer *o = mptl_optimizer_at(id);
    lua_createtable(L, 0, 3);
    bind_set_string(L, "name", o->name);
    lua_createtable(L, o->n_states, 0);
    for (int k = 0; k < o->n_states; k++) {
      lua_pushstring(L, o->states[k]);
      lua_rawseti(L, -2, k + 1);
    }
    lua_setfield(L, -2, "states");
    push_settings(L, o);
    lua_setfield(L, -2, "settings");
    lua_rawseti(L, -2, (lua_Integer)id + 1);
  }
  return 1;
}

/* ---- Models ---- */

/* Puts parameters into the parameter groups that the table on top of the stack gives by name. */
static void set_groups(lua_State *L, mptl_model *m) {
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int index = mptl_graph_find_param(m->graph, name);
    if (index < 0)
      luaL_error(L, "parameter_groups: %s: the model has no parameter of that name", name);
    bind_check(L, mptl_model_set_group(m, index, (int)luaL_checkinteger(L, -1)));
    lua_pop(L, 1);
  }
}

static int model_new(lua_State *L) {
  static const char *const fields[] = {"seed", "device", "optimizer", "parameter_groups", NULL};
  mptl_graph *graph = bind_check_graph(L, 1);
  lua_settop(L, 2);
  bind_check_fields(L, 2, fields);
  mptl_model_options options = {.seed = (uint64_t)bind_opt_integer(L, 2, "seed", 0),
                                .device = bind_device_field(L, 2),
                                .optimizer = bind_optimizer_field(L, 2)};
  mptl_model **box = lua_newuserdatauv(L, sizeof *box, 1);
  *box = NULL;
  luaL_setmetatable(L, MODEL);
  bind_check(L, mptl_model_create(box, graph, &options));
  lua_pushvalue(L, 1); /* the model borrows the graph */
  lua_setiuservalue(L, -2, 1);
  if (lua_istable(L, 2) && lua_getfield(L, 2, "parameter_groups") == LUA_TTABLE)
    set_groups(L, *box);
  lua_settop(L, 3);
  return 1;
}

static int model_gc(lua_State *L) {
  mptl_model **box = luaL_checkudata(L, 1, MODEL);
  mptl_model_destroy(*box);
  *box = NULL;
  return 0;
}

static int push_of(lua_State *L, const mptl_model *m, mptl_tensor **tensors, int name_index,
                   const char *what) {
  const char *name = luaL_checkstring(L, name_index);
  int i = mptl_graph_find_param(m->graph, name);
  if (i < 0) luaL_error(L, "%s: the model has no parameter or buffer of that name", name);
  if (tensors[i] == NULL)
    luaL_error(L, "%s has no %s: it is not trained, or no training program was made yet", name,
               what);
  mptl_tensor_retain(tensors[i]);
  bind_push_tensor(L, tensors[i]);
  return 1;
}

static int model_tensor(lua_State *L) {
  return push_of(L, bind_check_model(L, 1), bind_check_model(L, 1)->params, 2, "values");
}
static int model_grad(lua_State *L) {
  return push_of(L, bind_check_model(L, 1), bind_check_model(L, 1)->grads, 2, "gradient");
}

static int model_state(lua_State *L) {
  const mptl_model *m = bind_check_model(L, 1);
  const char *state = luaL_checkstring(L, 2);
  for (int k = 0; k < m->optimizer->n_states; k++)
    if (strcmp(m->optimizer->states[k], state) == 0) return push_of(L, m, m->states[k], 3, state);
  return luaL_error(L, "state %s: the optimizer %s has no such state", state, m->optimizer->name);
}

static int model_names(lua_State *L) {
  const mptl_graph *g = bind_check_model(L, 1)->graph;
  lua_createtable(L, g->n_params, 0);
  for (int i = 0; i < g->n_params; i++) {
    lua_pushstring(L, g->params[i].name);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int model_device(lua_State *L) {
  lua_pushstring(L, mptl_device_name(bind_check_model(L, 1)->device));
  return 1;
}

static int model_optimizer(lua_State *L) {
  lua_pushstring(L, bind_check_model(L, 1)->optimizer->name);
  return 1;
}

static int model_updates(lua_State *L) {
  lua_pushinteger(L, bind_check_model(L, 1)->updates);
  return 1;
}

static int model_set_updates(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 0, 2, "must not be negative");
  bind_check_model(L, 1)->updates = n;
  return 0;
}

static int model_gradient_norm(lua_State *L) {
  lua_pushnumber(L, bind_check_model(L, 1)->gradient_norm);
  return 1;
}

/* ---- Updates ---- */

/* Reads the optimizer's settings from the table at index; the others do not change. */
static void read_settings(lua_State *L, int index, const mptl_optimizer *o, double *settings) {
  for (int i = 0; i < o->n_settings; i++)
    settings[i] = bind_opt_number(L, index, o->settings[i].name, settings[i]);
}

/* Lists the names of the optimizer's settings, and more fields; NULL-terminated. */
static void list_fields(const char **fields, const mptl_optimizer *o, const char *const *more) {
  int n = 0;
  for (int i = 0; i < o->n_settings; i++) fields[n++] = o->settings[i].name;
  for (; more != NULL && *more != NULL; more++) fields[n++] = *more;
  fields[n] = NULL;
}

/* Reads the settings of parameter groups 1, 2, ... from the list on top of the stack. Other
 * settings are as in group 0. */
static void read_groups(lua_State *L, const mptl_optimizer *o, mptl_update *update) {
  const char *fields[MPTL_MAX_SETTINGS + 1];
  lua_Integer n = luaL_len(L, -1);
  list_fields(fields, o, NULL);
  if (n >= MPTL_PARAMETER_GROUPS)
    luaL_error(L, "groups: %I, at most %d", n, MPTL_PARAMETER_GROUPS - 1);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_geti(L, -1, i);
    int group = lua_gettop(L);
    bind_check_fields(L, group, fields);
    memcpy(update->settings[i], update->settings[0], sizeof update->settings[0]);
    read_settings(L, group, o, update->settings[i]);
    lua_pop(L, 1);
  }
  update->n_groups = (int)n + 1;
}

mptl_update bind_read_update(lua_State *L, int index, const mptl_optimizer *o) {
  static const char *const more[] = {"step",      "groups",         "loss_scale",
                                     "clip_norm", "skip_nonfinite", NULL};
  const char *fields[MPTL_MAX_SETTINGS + 6];
  list_fields(fields, o, more);
  bind_check_fields(L, index, fields);
  mptl_update update = mptl_update_default(o);
  read_settings(L, index, o, update.settings[0]);
  update.loss_scale = bind_opt_number(L, index, "loss_scale", 1);
  update.clip_norm = bind_opt_number(L, index, "clip_norm", 0);
  update.skip_nonfinite = bind_opt_boolean(L, index, "skip_nonfinite", 1);
  if (lua_isnoneornil(L, index)) return update;
  if (lua_getfield(L, index, "groups") == LUA_TTABLE) read_groups(L, o, &update);
  lua_pop(L, 1);
  return update;
}

static int model_update(lua_State *L) {
  mptl_model *m = bind_check_model(L, 1);
  mptl_update update = bind_read_update(L, 2, m->optimizer);
  bind_check(L, mptl_model_update(m, &update));
  return 0;
}

static const luaL_Reg methods[] = {
    {"tensor", model_tensor},
    {"grad", model_grad},
    {"state", model_state},
    {"names", model_names},
    {"device", model_device},
    {"optimizer", model_optimizer},
    {"updates", model_updates},
    {"set_updates", model_set_updates},
    {"update", model_update},
    {"gradient_norm", model_gradient_norm},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"model", model_new}, {"optimizers", optimizers}, {NULL, NULL}};

void mptl_bind_model(lua_State *L) {
  bind_new_type(L, MODEL, methods, model_gc);
  luaL_setfuncs(L, functions, 0);
}
