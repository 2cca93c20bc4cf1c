/* usage: lua SCRIPT ARGS...   A Lua interpreter for the specs of sanitizer builds. A sanitizer's
 * runtime must be linked into the program. The system's lua5.4 does not have it, and preloading it
 * would affect every child process.
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>

/* Keeps modules mapped after lua_close, so that a leak report at exit can name their functions. */
int dlclose(void *handle);
int dlclose(void *handle) { return handle == NULL; }

static int traceback(lua_State *L) {
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

int main(int argc, char **argv) {
  lua_State *L = luaL_newstate();
  if (L == NULL || argc < 2) return 2;
  luaL_openlibs(L);
  lua_createtable(L, argc, 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i - 1); /* arg[0] is the script, as in lua */
  }
  lua_setglobal(L, "arg");
  lua_pushcfunction(L, traceback);
  int failed = luaL_loadfile(L, argv[1]) != LUA_OK || lua_pcall(L, 0, 0, -2) != LUA_OK;
  if (failed) fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}
