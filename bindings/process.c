/* Child processes (Debian's luaposix is not built for Lua 5.4).
 *
 *   core.executable() -> path of the running executable
 *   core.spawn({program, argument...}, output) -> pid   with /dev/null as input; appends output and
 *                                                       errors to the file output
 *   core.wait_child(seconds) -> pid, code   of a child that ended; nil if none ended in that time,
 * or this process was interrupted. code: exit status, or 128
 *                                           + signal
 *   core.interrupt(pid)                     sends SIGINT to a child
 * Each child has its own process group: the terminal's Ctrl-C reaches only the parent, which then
 * ends its children.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bindings/bind.h"

extern char **environ;

static int process_executable(lua_State *L) {
  char path[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  if (n < 0 || n == sizeof path)
    luaL_error(L, "cannot find the path of this program: %s",
               strerror(n < 0 ? errno : ENAMETOOLONG));
  lua_pushlstring(L, path, (size_t)n);
  return 1;
}

/* Starts a program. Returns 0, or an error number. */
static int spawn(pid_t *pid, char **argv, const char *output) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGINT);
  sigaddset(&defaults, SIGTERM);
  sigaddset(&defaults, SIGXFSZ);
  int error = posix_spawn_file_actions_init(&files);
  if (error) return error;
  error = posix_spawnattr_init(&attributes);
  if (error) {
    posix_spawn_file_actions_destroy(&files);
    return error;
  }
  if (!error) error = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  if (!error)
    error =
        posix_spawn_file_actions_addopen(&files, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (!error) error = posix_spawn_file_actions_adddup2(&files, 1, 2);
  if (!error) error = posix_spawnattr_setpgroup(&attributes, 0);
  if (!error) error = posix_spawnattr_setsigdefault(&attributes, &defaults);
  if (!error)
    error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
  if (!error) error = posix_spawnp(pid, argv[0], &files, &attributes, argv, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

static int process_spawn(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  const char *output = luaL_checkstring(L, 2);
  lua_Integer n = luaL_len(L, 1);
  luaL_argcheck(L, n >= 1 && n < 4096, 1, "a program and at most 4095 arguments");
  char **argv = lua_newuserdatauv(L, (size_t)(n + 1) * sizeof *argv, 0);
  for (lua_Integer i = 0; i < n; i++) {
    if (lua_rawgeti(L, 1, i + 1) != LUA_TSTRING)
      luaL_error(L, "spawn: argument %I is not a string", i);
    argv[i] = (char *)lua_tostring(L, -1); /* the table keeps it */
    lua_pop(L, 1);
  }
  argv[n] = NULL;
  signal(SIGCHLD, SIG_DFL); /* if it were ignored, the system would not report how children end */
  pid_t pid;
  int error = spawn(&pid, argv, output);
  if (error) luaL_error(L, "cannot start %s: %s", argv[0], strerror(error));
  lua_pushinteger(L, pid);
  return 1;
}

static int process_wait_child(lua_State *L) {
  lua_Number seconds = luaL_checknumber(L, 1);
  const struct timespec between = {.tv_nsec = 20 * 1000 * 1000};
  for (lua_Number waited = 0;; waited += 0.02) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid > 0) {
      lua_pushinteger(L, pid);
      lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
      return 2;
    }
    if (waited >= seconds || nanosleep(&between, NULL) != 0) return 0;
  }
}

static int process_interrupt(lua_State *L) {
  lua_Integer pid = luaL_checkinteger(L, 1);
  luaL_argcheck(L, pid > 1, 1, "not the process number of a child");
  if (kill((pid_t)pid, SIGINT) != 0 && errno != ESRCH)
    luaL_error(L, "cannot interrupt process %I: %s", pid, strerror(errno));
  return 0;
}

static const luaL_Reg functions[] = {
    {"executable", process_executable},
    {"spawn", process_spawn},
    {"wait_child", process_wait_child},
    {"interrupt", process_interrupt},
    {NULL, NULL},
};

void mptl_bind_process(lua_State *L) { luaL_setfuncs(L, functions, 0); }
