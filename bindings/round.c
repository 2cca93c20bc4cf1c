/* Rounding, encoding and decoding of tensors or lists of numbers.
 *
 *   core.round(x, format, options) -> rounded (a tensor for a tensor, a list for a list), statistics
 *   core.encode(x, format, options) -> string of little-endian codes, statistics
 *   core.decode(codes, format) -> list of numbers
 *   core.rounding_modes() -> names      core.isa() -> name      core.isa(name) chooses (mptl/isa.h)      core.isas() -> names
 *
 * options: mode (nearest_even), overflow ("saturate" or "inf"), seed, stream, step (the random bits' key), index (of the first
 * element). FP(e,m,auto) takes its bias shift from x; the statistics name the format that it became.
 */
#include <stdlib.h>
#include <string.h>

#include "bindings/bind.h"
#include "mptl/isa.h"
#include "mptl/round.h"

typedef struct options {
  mptl_rounder rounder;
  mptl_key key;
  uint64_t index;
} options;

static mptl_overflow check_overflow(lua_State *L, const char *name) {
  if (strcmp(name, "saturate") == 0) return MPTL_SATURATE;
  if (strcmp(name, "inf") == 0) return MPTL_INF;
  luaL_where(L, 0);
  lua_pushfstring(L, "overflow %s: accepted are saturate, inf", name);
  return (mptl_overflow)lua_error(L);
}

static void read_options(lua_State *L, options *o, mptl_format format, int index) {
  static const char *const fields[] = {"mode", "overflow", "seed", "stream", "step", "index", NULL};
  mptl_rounding_mode mode;
  bind_check_fields(L, index, fields);
  bind_check(L, mptl_rounding_mode_parse(&mode, bind_opt_string(L, index, "mode", "nearest_even")));
  mptl_overflow overflow = check_overflow(L, bind_opt_string(L, index, "overflow", "saturate"));
  mptl_rounder_init(&o->rounder, format, mode, overflow);
  o->key = mptl_make_key((uint64_t)bind_opt_integer(L, index, "seed", 0), MPTL_STREAM_ROUND,
                         (uint32_t)bind_opt_integer(L, index, "stream", 0), (uint32_t)bind_opt_integer(L, index, "step", 0));
  o->index = (uint64_t)bind_opt_integer(L, index, "index", 0);
}

/* The values at index: a tensor's own, or those of a list in a tensor that is pushed on the stack (a copy in either case is
 * the caller's to make). Pushes exactly one value. */
static mptl_tensor *push_values(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TTABLE) {
    mptl_tensor *given = bind_check_tensor(L, index);
    lua_pushvalue(L, index);
    return given;
  }
  mptl_tensor *t;
  int64_t n = luaL_len(L, index);
  bind_check(L, mptl_tensor_create(&t, 1, &n));
  bind_push_tensor(L, t);
  for (int64_t i = 0; i < n; i++) {
    lua_geti(L, index, i + 1);
    if (lua_type(L, -1) != LUA_TNUMBER)
      luaL_error(L, "element %I is a %s, must be a number", (lua_Integer)i + 1, luaL_typename(L, -1));
    t->data[i] = (float)lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  return t;
}

static void push_stats(lua_State *L, const mptl_round_stats *stats, mptl_format format) {
  char name[32];
  lua_newtable(L);
  bind_set_integer(L, "elements", (lua_Integer)stats->elements);
  bind_set_integer(L, "underflow", (lua_Integer)stats->underflow);
  bind_set_integer(L, "overflow", (lua_Integer)stats->overflow);
  bind_set_integer(L, "inf_in", (lua_Integer)stats->inf_in);
  bind_set_integer(L, "nan_in", (lua_Integer)stats->nan_in);
  bind_set_number(L, "max_abs", (lua_Number)stats->max_abs);
  bind_set_string(L, "format", mptl_format_print(format, name, sizeof name));
}

static void push_list(lua_State *L, const float *x, size_t n) {
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, (lua_Number)x[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

static int round_values(lua_State *L) {
  lua_settop(L, 3);
  mptl_format format = bind_check_format(L, 2);
  mptl_tensor *x = push_values(L, 1), *y;
  size_t n = mptl_tensor_numel(x);
  format = mptl_format_fit(format, format.auto_bias ? mptl_max_abs_f32(x->data, n) : 0);
  options o;
  read_options(L, &o, format, 3);
  bind_check(L, mptl_tensor_create(&y, x->ndim, x->dims));
  bind_push_tensor(L, y);
  mptl_round_stats stats = {0};
  mptl_round_f32(y->data, x->data, n, &o.rounder, o.key, o.index, &stats);
  if (lua_type(L, 1) == LUA_TTABLE) push_list(L, y->data, n);
  push_stats(L, &stats, format);
  return 2;
}

static int encode_values(lua_State *L) {
  lua_settop(L, 3);
  mptl_format format = bind_check_format(L, 2);
  mptl_tensor *x = push_values(L, 1);
  size_t n = mptl_tensor_numel(x);
  format = mptl_format_fit(format, format.auto_bias ? mptl_max_abs_f32(x->data, n) : 0);
  options o;
  read_options(L, &o, format, 3);
  mptl_round_stats stats = {0};
  luaL_Buffer b;
  size_t bytes = n * mptl_code_size(format);
  mptl_encode_f32(luaL_buffinitsize(L, &b, bytes), x->data, n, &o.rounder, o.key, o.index, &stats);
  luaL_pushresultsize(&b, bytes);
  push_stats(L, &stats, format);
  return 2;
}

static int decode_values(lua_State *L) {
  size_t bytes;
  const char *codes = luaL_checklstring(L, 1, &bytes);
  mptl_format format = bind_check_format(L, 2);
  size_t size = mptl_code_size(format);
  if (bytes % size) luaL_error(L, "decode: %I bytes, not a multiple of the format's %I", (lua_Integer)bytes, (lua_Integer)size);
  if (format.auto_bias)
    luaL_error(L, "format FP(%d,%d,auto): its bias shift comes from a tensor, fit it first", format.e, format.m);
  mptl_rounder rounder;
  mptl_rounder_init(&rounder, format, MPTL_NEAREST_EVEN, MPTL_INF);
  mptl_tensor *y;
  int64_t n = (int64_t)(bytes / size);
  bind_check(L, mptl_tensor_create(&y, 1, &n));
  bind_push_tensor(L, y);
  mptl_decode_f32(y->data, codes, (size_t)n, &rounder);
  push_list(L, y->data, (size_t)n);
  return 1;
}

static int rounding_modes(lua_State *L) {
  bind_push_names(L, mptl_rounding_mode_name);
  return 1;
}

static int isas(lua_State *L) {
  bind_push_names(L, mptl_isa_here);
  return 1;
}

static int isa(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) bind_check(L, mptl_isa_select(luaL_checkstring(L, 1)));
  lua_pushstring(L, mptl_isa_name());
  return 1;
}

void mptl_bind_round(lua_State *L) {
  static const luaL_Reg functions[] = {{"round", round_values},
                                       {"encode", encode_values},
                                       {"decode", decode_values},
                                       {"rounding_modes", rounding_modes},
                                       {"isa", isa},
                                       {"isas", isas},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
