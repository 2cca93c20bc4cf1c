/* mptl.Tensor: a handle on a dense binary32 tensor.
 *
 *   core.tensor({2, 3})   zeros   core.tensor({2, 3}, {values...})   values in row-major order
 *   core.tensor({2, 3}, values or nil, device)   in pinned memory for the device of that name
 *   t:get(i) t:set(i, x)         1-based, over the elements in row-major order
 *   t:size() -> {2, 3}   t:numel()   t:totable() -> flat table   t:fill(x)   t:copy(other)
 *   t:tostring() -> raw little-endian bytes       t:fromstring(bytes)
 *   t:finite() -> whether no element is inf or NaN
 *
 * All methods also work on tensors in a device's memory, through copies.
 */
#include <math.h>
#include <string.h>

#include "bindings/bind.h"

#define TENSOR "mptl.Tensor"

void bind_push_tensor(lua_State *L, mptl_tensor *tensor) {
  mptl_tensor **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = tensor;
  luaL_setmetatable(L, TENSOR);
}

mptl_tensor *bind_check_any_tensor(lua_State *L, int index) {
  return *(mptl_tensor **)luaL_checkudata(L, index, TENSOR);
}

mptl_tensor *bind_check_tensor(lua_State *L, int index) {
  mptl_tensor *t = bind_check_any_tensor(L, index);
  if (!mptl_tensor_on_host(t))
    luaL_argerror(L, index, "the tensor is in the memory of a device: copy it to another first");
  return t;
}

mptl_tensor *bind_host_tensor(lua_State *L, int index) {
  mptl_tensor *t = bind_check_any_tensor(L, index), *copy;
  if (mptl_tensor_on_host(t)) return t;
  index = lua_absindex(L, index);
  bind_check(L, mptl_tensor_create(&copy, t->ndim, t->dims));
  bind_push_tensor(L, copy);
  bind_check(L, mptl_tensor_read(t, 0, mptl_tensor_numel(t), copy->data));
  lua_replace(L, index);
  return copy;
}

static int tensor_new(lua_State *L) {
  lua_settop(L, 3);
  int64_t dims[MPTL_MAX_DIMS];
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer ndim = luaL_len(L, 1);
  luaL_argcheck(L, ndim <= MPTL_MAX_DIMS, 1, "a tensor has at most 4 dimensions");
  for (lua_Integer i = 0; i < ndim; i++) {
    lua_geti(L, 1, i + 1);
    dims[i] = luaL_checkinteger(L, -1);
    lua_pop(L, 1);
  }
  mptl_tensor *t;
  bind_check(L, mptl_tensor_create_for(&t, bind_opt_device(L, 3), (int)ndim, dims));
  bind_push_tensor(L, t);
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer n = (lua_Integer)mptl_tensor_numel(t), given = luaL_len(L, 2);
    if (given != n) luaL_error(L, "tensor: %I values given, the shape has %I", given, n);
    for (lua_Integer i = 0; i < n; i++) {
      lua_geti(L, 2, i + 1);
      t->data[i] = (float)luaL_checknumber(L, -1);
      lua_pop(L, 1);
    }
  }
  return 1;
}

static size_t check_element(lua_State *L, const mptl_tensor *t) {
  lua_Integer i = luaL_checkinteger(L, 2), n = (lua_Integer)mptl_tensor_numel(t);
  if (i < 1 || i > n) luaL_error(L, "tensor: element %I, accepted are 1 to %I", i, n);
  return (size_t)i - 1;
}

static int tensor_get(lua_State *L) {
  mptl_tensor *t = bind_check_any_tensor(L, 1);
  float x;
  bind_check(L, mptl_tensor_read(t, check_element(L, t), 1, &x));
  lua_pushnumber(L, (lua_Number)x);
  return 1;
}

static int tensor_set(lua_State *L) {
  mptl_tensor *t = bind_check_any_tensor(L, 1);
  size_t i = check_element(L, t);
  float x = (float)luaL_checknumber(L, 3);
  bind_check(L, mptl_tensor_write(t, i, 1, &x));
  return 0;
}

static int tensor_size(lua_State *L) {
  mptl_tensor *t = bind_check_any_tensor(L, 1);
  bind_push_integers(L, t->dims, t->ndim);
  return 1;
}

static int tensor_numel(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)mptl_tensor_numel(bind_check_any_tensor(L, 1)));
  return 1;
}

static int tensor_totable(lua_State *L) {
  mptl_tensor *t = bind_host_tensor(L, 1);
  bind_push_numbers(L, t->data, mptl_tensor_numel(t));
  return 1;
}

static int tensor_fill(lua_State *L) {
  enum { PIECE = 1024 };
  mptl_tensor *t = bind_check_any_tensor(L, 1);
  float x = (float)luaL_checknumber(L, 2), values[PIECE];
  for (size_t i = 0; i < PIECE; i++) values[i] = x;
  for (size_t at = 0, n = mptl_tensor_numel(t); at < n; at += PIECE)
    bind_check(L, mptl_tensor_write(t, at, n - at < PIECE ? n - at : PIECE, values));
  lua_settop(L, 1);
  return 1;
}

static int tensor_copy(lua_State *L) {
  mptl_tensor *t = bind_check_any_tensor(L, 1), *from = bind_check_any_tensor(L, 2);
  size_t n = mptl_tensor_numel(t), m = mptl_tensor_numel(from);
  if (n != m) luaL_error(L, "tensor copy: %I elements into %I", (lua_Integer)m, (lua_Integer)n);
  if (mptl_tensor_on_host(t) && mptl_tensor_on_host(from))
    memmove(t->data, from->data, n * sizeof(float));
  else if (mptl_tensor_on_host(t))
    bind_check(L, mptl_tensor_read(from, 0, n, t->data));
  else
    bind_check(L, mptl_tensor_write(t, 0, n, bind_host_tensor(L, 2)->data));
  lua_settop(L, 1);
  return 1;
}

static int tensor_finite(lua_State *L) {
  mptl_tensor *t = bind_host_tensor(L, 1);
  size_t n = mptl_tensor_numel(t), i = 0;
  while (i < n && isfinite(t->data[i])) i++;
  lua_pushboolean(L, i == n);
  return 1;
}

static int tensor_tostring(lua_State *L) {
  mptl_tensor *t = bind_host_tensor(L, 1);
  lua_pushlstring(L, (const char *)t->data, mptl_tensor_numel(t) * sizeof(float));
  return 1;
}

static int tensor_fromstring(lua_State *L) {
  mptl_tensor *t = bind_check_any_tensor(L, 1);
  size_t n, want = mptl_tensor_numel(t) * sizeof(float);
  const char *bytes = luaL_checklstring(L, 2, &n);
  if (n != want)
    luaL_error(L, "tensor fromstring: %I bytes, the tensor has %I", (lua_Integer)n,
               (lua_Integer)want);
  if (mptl_tensor_on_host(t))
    memcpy(t->data, bytes, n);
  else /* Lua aligns its strings for any type */
    bind_check(L,
               mptl_tensor_write(t, 0, mptl_tensor_numel(t), (const float *)(const void *)bytes));
  lua_settop(L, 1);
  return 1;
}

static int tensor_gc(lua_State *L) {
  mptl_tensor **box = luaL_checkudata(L, 1, TENSOR);
  mptl_tensor_release(*box);
  *box = NULL;
  return 0;
}

static int tensor_describe(lua_State *L) {
  mptl_tensor *t = bind_check_any_tensor(L, 1);
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  luaL_addstring(&b, "tensor(");
  for (int i = 0; i < t->ndim; i++) {
    if (i) luaL_addchar(&b, 'x');
    lua_pushinteger(L, t->dims[i]);
    luaL_addvalue(&b);
  }
  luaL_addchar(&b, ')');
  luaL_pushresult(&b);
  return 1;
}

static const luaL_Reg methods[] = {
    {"get", tensor_get},
    {"set", tensor_set},
    {"size", tensor_size},
    {"numel", tensor_numel},
    {"totable", tensor_totable},
    {"fill", tensor_fill},
    {"copy", tensor_copy},
    {"finite", tensor_finite},
    {"tostring", tensor_tostring},
    {"fromstring", tensor_fromstring},
    {"__tostring", tensor_describe},
    {NULL, NULL},
};

void mptl_bind_tensor(lua_State *L) {
  bind_new_type(L, TENSOR, methods, tensor_gc);
  lua_pushcfunction(L, tensor_new);
  lua_setfield(L, -2, "tensor");
}
