/* Formats by name. */
#include "bindings/bind.h"

mptl_format bind_check_format(lua_State *L, int index) {
  mptl_format f;
  bind_check(L, mptl_format_parse(&f, luaL_checkstring(L, index)));
  return f;
}
