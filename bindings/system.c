/* What Lua's library lacks: time, files that are replaced at once, the interrupt flag, the
 * terminal.
 *
 *   core.time() -> seconds since an arbitrary moment, monotonic
 *   core.write_file(path, {string | Tensor, ...})   replaces the file at once or not at all
 * (file.h) core.rename(from, to)    renames a file or folder, and syncs the new name to the disk
 *   core.sync_folder(path)   syncs the names in a folder to the disk
 *   core.appender(path) -> mptl.Appender, a file to append to: append(text), sync(), close()
 *   core.catch_interrupt([on])   true: SIGINT, SIGTERM and SIGHUP set a flag; a second SIGINT or
 *     SIGTERM has its former effect, usually the end of the process. false: restores the former
 *     handlers, but ignores SIGHUP after a first one
 *   core.interrupted() -> boolean
 *   core.isatty(fd) -> boolean;  core.terminal_width([fd]) -> columns (80 when it is no
 * terminal) */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "bindings/bind.h"
#include "core/clock.h"
#include "mptl/file.h"

static int system_time(lua_State *L) {
  lua_pushnumber(L, mptl_now());
  return 1;
}

/* ---- Files ---- */

static int system_write_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_Integer n = luaL_len(L, 2);
  lua_settop(L, 2);
  mptl_bytes *chunks = lua_newuserdatauv(L, (size_t)(n ? n : 1) * sizeof *chunks, 0);
  lua_newtable(L);
  for (lua_Integer i = 0; i < n; i++) { /* the table keeps what the chunks point to */
    int type = lua_rawgeti(L, 2, i + 1);
    if (type == LUA_TSTRING) {
      chunks[i].data = lua_tolstring(L, -1, &chunks[i].size);
    } else if (type == LUA_TUSERDATA) {
      mptl_tensor *t = bind_host_tensor(L, -1);
      lua_pushvalue(L, -1); /* keeps the copy of a device's tensor until it is written */
      lua_rawseti(L, 4, i + 1);
      chunks[i] = (mptl_bytes){t->data, mptl_tensor_numel(t) * sizeof(float)};
    } else {
      luaL_error(L, "write_file: chunk %I is a %s, accepted are strings and tensors", i + 1,
                 lua_typename(L, type));
    }
    lua_pop(L, 1);
  }
  bind_check(L, mptl_file_write(path, (size_t)n, chunks));
  return 0;
}

static int system_rename(lua_State *L) {
  bind_check(L, mptl_file_rename(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
  return 0;
}

static int system_sync_folder(lua_State *L) {
  bind_check(L, mptl_folder_sync(luaL_checkstring(L, 1)));
  return 0;
}

#define APPENDER "mptl.Appender"

static int appender_new(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mptl_appender **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, APPENDER);
  bind_check(L, mptl_appender_create(box, path));
  return 1;
}

static mptl_appender *check_appender(lua_State *L) {
  mptl_appender *appender = *(mptl_appender **)luaL_checkudata(L, 1, APPENDER);
  if (appender == NULL) luaL_error(L, "appender: already closed");
  return appender;
}

static int appender_append(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 2, &size);
  bind_check(L, mptl_appender_append(check_appender(L), text, size));
  return 0;
}

static int appender_sync(lua_State *L) {
  bind_check(L, mptl_appender_sync(check_appender(L)));
  return 0;
}

static int appender_gc(lua_State *L) {
  mptl_appender **box = luaL_checkudata(L, 1, APPENDER);
  mptl_appender_destroy(*box);
  *box = NULL;
  return 0;
}

static int appender_close(lua_State *L) {
  mptl_status status = mptl_appender_close(check_appender(L));
  appender_gc(L);
  bind_check(L, status);
  return 0;
}

static const luaL_Reg appender_methods[] = {
    {"append", appender_append},
    {"sync", appender_sync},
    {"close", appender_close},
    {NULL, NULL},
};

/* ---- Interrupts ---- */

static volatile sig_atomic_t interrupted, hung_up;
static struct sigaction before_int, before_term, before_hup; /* the former handlers */
static int catching;

/* SIGINT and SIGTERM are counted separately: Slurm sends SIGTERM to a sweep and to its children,
 * and the sweep sends SIGINT to its children, which must still write their checkpoints. SIGHUP
 * never ends the process, not even after its work is written: closing a terminal sends it more than
 * once, from the shell and from the system. */
static void on_interrupt(int sig) {
  interrupted = 1;
  if (sig == SIGHUP) hung_up = 1;
  if (sig == SIGINT) sigaction(SIGINT, &before_int, NULL);
  if (sig == SIGTERM) sigaction(SIGTERM, &before_term, NULL);
}

/* Shells start background processes with SIGINT ignored; a second SIGINT shall end them
 * nevertheless. */
static void never_ignored(struct sigaction *action) {
  if (!(action->sa_flags & SA_SIGINFO) && action->sa_handler == SIG_IGN)
    action->sa_handler = SIG_DFL;
}

/* Makes exceeding a limit on file sizes an error of write(2), instead of a signal that ends the
 * process. */
static void ignore_size_limit(int on) {
  static void (*before)(int) = SIG_DFL;
  void (*was)(int) = signal(SIGXFSZ, on ? SIG_IGN : before);
  if (on) before = was;
}

static void start_catching(void) {
  struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART}, old;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &old);
  if (old.sa_handler != on_interrupt) before_int = old;
  sigaction(SIGTERM, &action, &old);
  if (old.sa_handler != on_interrupt) before_term = old;
  sigaction(SIGHUP, NULL, &old);
  if (old.sa_handler != on_interrupt) before_hup = old;
  if (old.sa_handler != SIG_IGN)
    sigaction(SIGHUP, &action, NULL); /* under nohup it stays ignored */
  never_ignored(&before_int);
  never_ignored(&before_term);
  ignore_size_limit(1);
  catching = 1;
}

static void stop_catching(void) {
  if (!catching) return;
  sigaction(SIGINT, &before_int, NULL);
  sigaction(SIGTERM, &before_term, NULL);
  if (hung_up)
    signal(SIGHUP, SIG_IGN);
  else
    sigaction(SIGHUP, &before_hup, NULL);
  ignore_size_limit(0);
  catching = 0;
}

static int system_catch_interrupt(lua_State *L) {
  interrupted = 0;
  if (lua_isnone(L, 1) || lua_toboolean(L, 1))
    start_catching();
  else
    stop_catching();
  return 0;
}

static int system_interrupted(lua_State *L) {
  lua_pushboolean(L, interrupted != 0);
  return 1;
}

/* ---- Terminal ---- */

static int system_isatty(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

static int system_terminal_width(lua_State *L) {
  struct winsize size;
  int fd = (int)luaL_optinteger(L, 1, 1);
  int known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  lua_pushinteger(L, known ? size.ws_col : 80);
  return 1;
}

static const luaL_Reg functions[] = {
    {"time", system_time},
    {"write_file", system_write_file},
    {"rename", system_rename},
    {"sync_folder", system_sync_folder},
    {"appender", appender_new},
    {"catch_interrupt", system_catch_interrupt},
    {"interrupted", system_interrupted},
    {"isatty", system_isatty},
    {"terminal_width", system_terminal_width},
    {NULL, NULL},
};

void mptl_bind_system(lua_State *L) {
  bind_new_type(L, APPENDER, appender_methods, appender_gc);
  luaL_setfuncs(L, functions, 0);
}
