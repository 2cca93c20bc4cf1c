/* Helpers of the binding files: see bind.h. */
#include <limits.h>
#include <string.h>

#include "bindings/bind.h"

void bind_check(lua_State *L, mptl_status status) {
  if (status == MPTL_OK) return;
  lua_pushstring(L, mptl_error());
  lua_error(L);
}

/* Pushes a field of the table at index, or nil if there is no table. */
static int push_field(lua_State *L, int index, const char *field) {
  if (lua_isnoneornil(L, index)) {
    lua_pushnil(L);
    return LUA_TNIL;
  }
  luaL_checktype(L, index, LUA_TTABLE);
  return lua_getfield(L, index, field);
}

lua_Integer bind_opt_integer(lua_State *L, int index, const char *field, lua_Integer def) {
  int isnum = 1;
  if (push_field(L, index, field) != LUA_TNIL) def = lua_tointegerx(L, -1, &isnum);
  if (!isnum) luaL_error(L, "%s: %s, must be an integer", field, luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  return def;
}

lua_Number bind_opt_number(lua_State *L, int index, const char *field, lua_Number def) {
  int isnum = 1;
  if (push_field(L, index, field) != LUA_TNIL) def = lua_tonumberx(L, -1, &isnum);
  if (!isnum) luaL_error(L, "%s: %s, must be a number", field, luaL_tolstring(L, -1, NULL));
  lua_pop(L, 1);
  return def;
}

int bind_opt_boolean(lua_State *L, int index, const char *field, int def) {
  int type = push_field(L, index, field);
  if (type != LUA_TNIL && type != LUA_TBOOLEAN)
    luaL_error(L, "%s: %s, must be true or false", field, luaL_tolstring(L, -1, NULL));
  if (type == LUA_TBOOLEAN) def = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return def;
}

const char *bind_opt_string(lua_State *L, int index, const char *field, const char *def) {
  int type = push_field(L, index, field);
  if (type != LUA_TNIL && type != LUA_TSTRING)
    luaL_error(L, "%s: %s, must be a string", field, luaL_tolstring(L, -1, NULL));
  if (type == LUA_TSTRING) def = lua_tostring(L, -1);
  lua_pop(L, 1);
  return def;
}

void bind_check_fields(lua_State *L, int index, const char *const *names) {
  if (lua_isnoneornil(L, index)) return;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_pushnil(L);
  while (lua_next(L, lua_absindex(L, index))) {
    lua_pop(L, 1);
    const char *key = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    int known = 0;
    for (int i = 0; key && names[i]; i++) known |= strcmp(key, names[i]) == 0;
    if (known) continue;
    luaL_Buffer b;
    lua_pushfstring(L, "unknown option %s, accepted are:", luaL_tolstring(L, -1, NULL));
    const char *head = lua_tostring(L, -1);
    luaL_buffinit(L, &b);
    luaL_addstring(&b, head);
    for (int i = 0; names[i]; i++) {
      luaL_addchar(&b, ' ');
      luaL_addstring(&b, names[i]);
    }
    luaL_pushresult(&b);
    lua_error(L);
  }
}

void bind_push_numbers(lua_State *L, const float *values, size_t n) {
  lua_createtable(L, n < INT_MAX ? (int)n : 0, 0);
  for (size_t i = 0; i < n; i++) {
    lua_pushnumber(L, (lua_Number)values[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

void bind_push_names(lua_State *L, bind_names *names) {
  lua_newtable(L);
  for (size_t i = 0; names(i) != NULL; i++) {
    lua_pushstring(L, names(i));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

size_t bind_check_name(lua_State *L, const char *what, const char *name, bind_names *names) {
  for (size_t i = 0; names(i) != NULL; i++)
    if (strcmp(name, names(i)) == 0) return i;
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; names(i) != NULL; i++) {
    if (i > 0) luaL_addstring(&b, ", ");
    luaL_addstring(&b, names(i));
  }
  luaL_pushresult(&b);
  return (size_t)luaL_error(L, "%s: %s, accepted are %s", what, name, lua_tostring(L, -1));
}

void bind_set_integer(lua_State *L, const char *field, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, field);
}

void bind_set_number(lua_State *L, const char *field, lua_Number value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, field);
}

void bind_set_boolean(lua_State *L, const char *field, int value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, field);
}

void bind_set_string(lua_State *L, const char *field, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, field);
}

void bind_push_integers(lua_State *L, const int64_t *values, int n) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushinteger(L, values[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

void bind_new_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc) {
  luaL_newmetatable(L, name);
  lua_newtable(L);
  for (const luaL_Reg *m = methods; m->name != NULL; m++) {
    lua_pushcfunction(L, m->func);
    lua_setfield(L, strncmp(m->name, "__", 2) == 0 ? -3 : -2, m->name);
  }
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
