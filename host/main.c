/* The program mptl: a Lua 5.4 host that runs the command line in lua/mptl/cli.lua.
 *
 * It finds its Lua files relative to itself. Run from a build, it uses the source tree (at
 * MPTL_SOURCE_FROM_BIN, a relative path, so that tree and build may be moved together); installed,
 * it uses PREFIX/share/lua/5.4, PREFIX/lib/lua/5.4 and PREFIX/share/mptl. The same module works in
 * a stock Lua 5.4 with require "mptl".
 */
#include <errno.h>
#include <lauxlib.h>
#include <libgen.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Writes the directory of this program to dir; returns 0, or -1 when the system does not report
 * it. */
static int program_dir(char dir[PATH_MAX]) {
  char path[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n < 0) return -1;
  path[n] = '\0';
  snprintf(dir, PATH_MAX, "%s", dirname(path));
  return 0;
}

/* Prepends a search pattern to package[field]. */
static void prepend(lua_State *L, const char *field, const char *pattern) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, field);
  lua_pushfstring(L, "%s;%s", pattern, lua_tostring(L, -1));
  lua_setfield(L, -3, field);
  lua_pop(L, 2);
}

static void set_paths(lua_State *L) {
  char dir[PATH_MAX], path[2 * PATH_MAX + 64];
  /* A LUA_PATH that was set for another program adds folders, which are searched last, and removes
   * none. */
  if (getenv("LUA_PATH_5_4") || getenv("LUA_PATH")) prepend(L, "path", LUA_PATH_DEFAULT);
  if (getenv("LUA_CPATH_5_4") || getenv("LUA_CPATH")) prepend(L, "cpath", LUA_CPATH_DEFAULT);
  if (program_dir(dir) != 0) return;
  snprintf(path, sizeof path, "%s/../lib/mptl/core.so", dir);
  int from_build = access(path, R_OK) == 0;
  if (from_build) {
    snprintf(path, sizeof path, "%s/../lib/?.so", dir);
    prepend(L, "cpath", path);
    snprintf(path, sizeof path, "%s/" MPTL_SOURCE_FROM_BIN, dir);
    if (realpath(path, dir) == NULL) return; /* the source tree does not exist */
    snprintf(path, sizeof path, "%s/lua/?.lua;%s/lua/?/init.lua", dir, dir);
    prepend(L, "path", path);
    lua_pushfstring(L, "%s/models", dir);
  } else {
    snprintf(path, sizeof path, "%s/../share/lua/5.4/?.lua;%s/../share/lua/5.4/?/init.lua", dir,
             dir);
    prepend(L, "path", path);
    snprintf(path, sizeof path, "%s/../lib/lua/5.4/?.so", dir);
    prepend(L, "cpath", path);
    snprintf(path, sizeof path, "%s/../share/mptl/models", dir);
    lua_pushstring(L, path);
  }
  lua_setglobal(L, "MPTL_MODELS");
}

static int traceback(lua_State *L) {
  const char *message = lua_tostring(L, 1);
  if (message == NULL) {
    if (luaL_callmeta(L, 1, "__tostring")) return 1;
    message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  }
  if (getenv("MPTL_TRACEBACK") != NULL) luaL_traceback(L, L, message, 1);
  return 1;
}

/* Prints an error on one line; for a missing module without the list of all files that were
 * tried. */
static void complain(const char *message) {
  static const char missing[] = "' not found:\n";
  fputs("mptl: ", stderr);
  const char *end = getenv("MPTL_TRACEBACK") == NULL ? strstr(message, missing) : NULL;
  if (end != NULL) {
    fprintf(stderr, "%.*s' not found in the usual places, LUA_PATH or LUA_CPATH\n",
            (int)(end - message), message);
    return;
  }
  for (const char *c = message; *c; c++) {
    if (*c != '\n' || getenv("MPTL_TRACEBACK") != NULL) {
      fputc(*c, stderr);
      continue;
    }
    fputc(' ', stderr);
    c += strspn(c, " \t\n") - 1;
  }
  fputc('\n', stderr);
}

/* Runs, inside of the protected call, require "mptl.cli".main(arg), which returns the exit
 * status. */
static int protected_main(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1);
  char **argv = lua_touserdata(L, 2);
  luaL_openlibs(L);
  set_paths(L);
  lua_createtable(L, argc, 1);
  for (int i = 0; i < argc; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  lua_setglobal(L, "arg");
  lua_getglobal(L, "require");
  lua_pushliteral(L, "mptl.cli");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "main");
  lua_getglobal(L, "arg");
  lua_call(L, 1, 1);
  return 1;
}

/* Makes waiting threads spin for some 50 microseconds and then sleep. GNU OpenMP's default,
 * milliseconds, makes a training very slow when another program uses the same cores. Must be set
 * before the OpenMP library is loaded (with mptl.core). */
static void limit_spinning(void) {
  if (getenv("OMP_WAIT_POLICY") == NULL) setenv("GOMP_SPINCOUNT", "20000", 0);
}

/* Flushes standard output and returns the exit status of a command that succeeded: 1 when something
 * that it printed could not be written, for example because the disk is full. */
static int finish_output(void) {
  int failed = ferror(stdout);
  errno = 0;
  if (fflush(stdout) != 0) failed = 1;
  if (!failed && fclose(stdout) != 0 && errno != EBADF)
    failed = 1; /* EBADF: mptl was started with it closed */
  if (failed)
    fprintf(stderr, "mptl: cannot write standard output%s%s\n", errno ? ": " : "",
            errno ? strerror(errno) : "");
  return failed;
}

int main(int argc, char **argv) {
  limit_spinning();
  signal(SIGXFSZ, SIG_IGN); /* exceeding a limit on file sizes shall be an error of write(2) */
  lua_State *L = luaL_newstate();
  if (L == NULL) {
    fprintf(stderr, "mptl: out of memory\n");
    return 1;
  }
  lua_pushcfunction(L, traceback);
  lua_pushcfunction(L, protected_main);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  int status = lua_pcall(L, 2, 1, 1);
  int code = 1;
  if (status != LUA_OK)
    complain(lua_isstring(L, -1) ? lua_tostring(L, -1) : "an error that is not a string");
  else
    code = (int)luaL_optinteger(L, -1, 0);
  lua_close(L);
  return code == 0 ? finish_output() : code;
}
