/* Number formats.
 *
 *   core.format("FP(4,3,4)") -> { name, e, m, b (or "auto"), bits, max, min_normal, min_subnormal,
 *                                 epsilon, has_infinity, has_nan, values, max_code, code_size }
 *   core.formats()           -> names of the named formats
 *   core.format_fit(name, largest) -> name of the format that FP(e,m,auto) becomes for values of
 * that largest magnitude
 */
#include "bindings/bind.h"
#include "mptl/round.h"

mptl_format bind_check_format(lua_State *L, int index) {
  mptl_format format;
  bind_check(L, mptl_format_parse(&format, luaL_checkstring(L, index)));
  return format;
}

static void push_name(lua_State *L, mptl_format format) {
  char name[32];
  lua_pushstring(L, mptl_format_print(format, name, sizeof name));
}

static int format_describe(lua_State *L) {
  mptl_format format = bind_check_format(L, 1);
  mptl_format_info info = mptl_format_describe(format);
  lua_newtable(L);
  push_name(L, format);
  lua_setfield(L, -2, "name");
  bind_set_integer(L, "e", format.e);
  bind_set_integer(L, "m", format.m);
  if (format.auto_bias) {
    lua_pushliteral(L, "auto");
    lua_setfield(L, -2, "b");
  } else {
    bind_set_integer(L, "b", format.b);
  }
  bind_set_integer(L, "bits", info.bits);
  bind_set_number(L, "max", info.max);
  bind_set_number(L, "min_normal", info.min_normal);
  bind_set_number(L, "min_subnormal", info.min_subnormal);
  bind_set_number(L, "epsilon", info.epsilon);
  bind_set_boolean(L, "has_infinity", info.has_infinity);
  bind_set_boolean(L, "has_nan", info.has_nan);
  bind_set_integer(L, "values", (lua_Integer)info.values);
  bind_set_integer(L, "max_code", (lua_Integer)(info.values - 1) / 2);
  bind_set_integer(L, "code_size", (lua_Integer)mptl_code_size(format));
  return 1;
}

static int format_names(lua_State *L) {
  bind_push_names(L, mptl_format_name);
  return 1;
}

static int format_fit(lua_State *L) {
  push_name(L, mptl_format_fit(bind_check_format(L, 1), luaL_checknumber(L, 2)));
  return 1;
}

void mptl_bind_format(lua_State *L) {
  static const luaL_Reg functions[] = {{"format", format_describe},
                                       {"formats", format_names},
                                       {"format_fit", format_fit},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
