/* Rounding, encoding and decoding of tensors or lists of numbers.
 *
 *   core.round(x, format, options) -> rounded (a tensor for a tensor, a list for a list),
 * statistics core.encode(x, format, options) -> string of little-endian codes, statistics
 *   core.decode(codes, format) -> list of numbers
 *   core.rounding_modes() -> names
 *   core.isa() -> name of the instruction set in use   core.isa(name) chooses one (mptl/isa.h)
 *   core.isas() -> names
 *
 * options: mode (nearest_even), overflow ("saturate" or "inf"), seed, stream, step (which select
 * the random bits), index (of the first element). FP(e,m,auto) takes its bias shift from x; the
 * statistics name the resulting format. The numbers of a list are rounded directly to the format,
 * not to binary32 first.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/rounding.h"
#include "mptl/exact.h"
#include "mptl/isa.h"

static mptl_overflow check_overflow(lua_State *L, const char *name) {
  if (strcmp(name, "saturate") == 0) return MPTL_SATURATE;
  if (strcmp(name, "inf") == 0) return MPTL_INF;
  luaL_where(L, 0);
  lua_pushfstring(L, "overflow %s: accepted are saturate, inf", name);
  return (mptl_overflow)lua_error(L);
}

void bind_check_rounding(lua_State *L, bind_rounding *o, mptl_format format, int index) {
  static const char *const fields[] = {"mode", "overflow", "seed", "stream", "step", "index", NULL};
  mptl_rounding_mode mode;
  bind_check_fields(L, index, fields);
  bind_check(L, mptl_rounding_mode_parse(&mode, bind_opt_string(L, index, "mode", "nearest_even")));
  mptl_overflow overflow = check_overflow(L, bind_opt_string(L, index, "overflow", "saturate"));
  mptl_rounder_init(&o->rounder, format, mode, overflow);
  o->key = mptl_make_key((uint64_t)bind_opt_integer(L, index, "seed", 0), MPTL_STREAM_ROUND,
                         (uint32_t)bind_opt_integer(L, index, "stream", 0),
                         (uint32_t)bind_opt_integer(L, index, "step", 0));
  o->index = (uint64_t)bind_opt_integer(L, index, "index", 0);
}

/* Rounded values, with statistics. */
typedef struct rounded {
  mptl_tensor *y; /* it is on the stack */
  size_t n;
  bind_rounding options; /* with the format after fitting */
  mptl_round_stats stats;
  double max_abs, fit; /* largest magnitude before rounding; the same for mptl_format_fit */
} rounded;

static mptl_tensor *push_tensor(lua_State *L, int ndim, const int64_t *dims) {
  mptl_tensor *t;
  bind_check(L, mptl_tensor_create(&t, ndim, dims));
  bind_push_tensor(L, t);
  return t;
}

/* Element i, from 0, of the list at index; *magnitude is its magnitude, 0 unless it is finite. */
static mptl_exact list_element(lua_State *L, int index, size_t i, double *magnitude) {
  lua_geti(L, index, (lua_Integer)i + 1);
  if (lua_type(L, -1) != LUA_TNUMBER)
    luaL_error(L, "element %I is a %s, must be a number", (lua_Integer)i + 1, luaL_typename(L, -1));
  mptl_exact x = lua_isinteger(L, -1) ? mptl_exact_from_integer(lua_tointeger(L, -1))
                                      : mptl_exact_from_f64(lua_tonumber(L, -1));
  double size = fabs(lua_tonumber(L, -1));
  *magnitude = isfinite(size) ? size : 0;
  lua_pop(L, 1);
  return x;
}

static void round_list(lua_State *L, rounded *r, mptl_format format) {
  double size;
  int64_t n = luaL_len(L, 1);
  r->n = (size_t)n;
  for (size_t i = 0; i < r->n; i++) {
    mptl_exact x = list_element(L, 1, i, &size);
    r->max_abs = fmax(r->max_abs, size);
    if (format.auto_bias) r->fit = fmax(r->fit, mptl_exact_bound(&x));
  }
  bind_check_rounding(L, &r->options, mptl_format_fit(format, r->fit), 3);
  r->y = push_tensor(L, 1, &n);
  for (size_t i = 0; i < r->n; i++) {
    uint32_t event;
    mptl_exact x = list_element(L, 1, i, &size);
    r->y->data[i] = mptl_bits_f32(
        mptl_round_exact(&x, &r->options.rounder, r->options.key, r->options.index + i, &event));
    mptl_count(&r->stats, 0, event);
  }
}

static void round_tensor(lua_State *L, rounded *r, mptl_format format) {
  const mptl_tensor *x = bind_check_tensor(L, 1);
  r->n = mptl_tensor_numel(x);
  format = mptl_format_fit(format, format.auto_bias ? (double)mptl_max_abs_f32(x->data, r->n) : 0);
  bind_check_rounding(L, &r->options, format, 3);
  r->y = push_tensor(L, x->ndim, x->dims);
  mptl_round_f32(r->y->data, x->data, r->n, &r->options.rounder, r->options.key, r->options.index,
                 &r->stats);
  r->max_abs = (double)r->stats.max_abs;
}

/* Rounds argument 1 as arguments 2 and 3 say, and pushes a tensor of the results. */
static rounded round_arguments(lua_State *L) {
  rounded r = {0};
  lua_settop(L, 3);
  mptl_format format = bind_check_format(L, 2);
  if (lua_type(L, 1) == LUA_TTABLE)
    round_list(L, &r, format);
  else
    round_tensor(L, &r, format);
  return r;
}

static void push_stats(lua_State *L, const rounded *r) {
  char name[32];
  lua_newtable(L);
  bind_set_integer(L, "elements", (lua_Integer)r->stats.elements);
  bind_set_integer(L, "underflow", (lua_Integer)r->stats.underflow);
  bind_set_integer(L, "overflow", (lua_Integer)r->stats.overflow);
  bind_set_integer(L, "inf_in", (lua_Integer)r->stats.inf_in);
  bind_set_integer(L, "nan_in", (lua_Integer)r->stats.nan_in);
  bind_set_number(L, "max_abs", r->max_abs);
  bind_set_string(L, "format", mptl_format_print(r->options.rounder.format, name, sizeof name));
}

static int round_values(lua_State *L) {
  rounded r = round_arguments(L);
  if (lua_type(L, 1) == LUA_TTABLE) bind_push_numbers(L, r.y->data, r.n);
  push_stats(L, &r);
  return 2;
}

/* Rounded values are on the format's grid, so encoding them does not change them. */
static int encode_values(lua_State *L) {
  rounded r = round_arguments(L);
  luaL_Buffer b;
  size_t bytes = r.n * mptl_code_size(r.options.rounder.format);
  mptl_encode_f32(luaL_buffinitsize(L, &b, bytes), r.y->data, r.n, &r.options.rounder,
                  r.options.key, r.options.index, NULL);
  luaL_pushresultsize(&b, bytes);
  push_stats(L, &r);
  return 2;
}

static int decode_values(lua_State *L) {
  size_t bytes;
  const char *codes = luaL_checklstring(L, 1, &bytes);
  mptl_format format = bind_check_format(L, 2);
  size_t size = mptl_code_size(format);
  if (bytes % size)
    luaL_error(L, "decode: %I bytes, not a multiple of the format's %I", (lua_Integer)bytes,
               (lua_Integer)size);
  if (format.auto_bias)
    luaL_error(L, "format FP(%d,%d,auto): its bias shift comes from a tensor, fit it first",
               format.e, format.m);
  mptl_rounder rounder;
  mptl_rounder_init(&rounder, format, MPTL_NEAREST_EVEN, MPTL_INF);
  mptl_tensor *y;
  int64_t n = (int64_t)(bytes / size);
  bind_check(L, mptl_tensor_create(&y, 1, &n));
  bind_push_tensor(L, y);
  mptl_decode_f32(y->data, codes, (size_t)n, &rounder);
  bind_push_numbers(L, y->data, (size_t)n);
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
