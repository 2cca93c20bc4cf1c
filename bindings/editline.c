/* Line editing for the interactive Lua, through libedit; and running Lua code that Ctrl-C
 * interrupts.
 *
 *   core.editline.read(prompt) -> line; nil at the end (Ctrl-D); false when interrupted (Ctrl-C)
 *   core.editline.add(line)   core.editline.load(path), core.editline.save(path, max) -> success
 *     the history
 *   core.editline.completer(f)   sets the completer: f(text before the cursor, bytes in its last
 * word)
 *     -> list of candidates for that word; a completer that takes too long has no candidates
 *   core.editline.call(f, ...) -> as pcall, but SIGINT raises "interrupted!" in f, and again if f
 *     catches the error
 *   core.editline.guard(on)   ignores SIGINT between read and call, while no code runs
 *   core.editline.interrupted() -> whether the last call was interrupted
 *
 * A process has one libedit and one set of signal handlers, so the state is in static variables:
 * there can be one reader at a time.
 */
#include <editline/readline.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bindings/bind.h"

static volatile sig_atomic_t interrupted;
static pthread_t reader; /* the thread that reads or runs a line */

static lua_State *completing; /* the state that has the completer; NULL outside of read */
static int completer_ref = LUA_NOREF;

/* Characters that a chain of names (mptl.nn) cannot have. */
static char word_breaks[] = " \t\n\"'><=;{}()[],+-*/%^#~&|";

static char *line; /* the line that libedit returned */
static int line_done;

static void on_line(char *text) {
  line = text;
  line_done = 1;
  rl_callback_handler_remove(); /* restores the terminal before the line runs */
}

/* One of the engine's threads may receive the signal; it passes it on, since the reader must wake
 * up. */
static void on_interrupt(int signal) {
  interrupted = 1;
  if (!pthread_equal(pthread_self(), reader)) pthread_kill(reader, signal);
}

/* Lua instructions that a completion may take: some tenths of a second. */
static const int patience = 20 * 1000 * 1000;

/* Ends a completer that takes too long: a user's code may compute the fields of a value, and may
 * never end. From then on the error is raised at every instruction, in case the completer catches
 * errors. */
static void give_up(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, give_up, LUA_MASKCOUNT, 1);
  luaL_error(L, "takes too long");
}

/* The candidates for the word before the cursor, as libedit expects them: a list that begins with
 * the common prefix; NULL for none. */
static char **complete(const char *word, int start, int end) {
  lua_State *L = completing;
  (void)word;
  rl_attempted_completion_over = 1; /* no file names */
  rl_completion_append_character = '\0';
  if (L == NULL || completer_ref == LUA_NOREF) return NULL;
  int top = lua_gettop(L);
  char **list = NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, completer_ref);
  lua_pushlstring(L, rl_line_buffer, (size_t)end);
  lua_pushinteger(L, end - start);
  lua_sethook(L, give_up, LUA_MASKCOUNT, patience);
  int status = lua_pcall(L, 2, 1, 0);
  lua_sethook(L, NULL, 0, 0);
  if (status == LUA_OK && lua_istable(L, -1)) {
    size_t n = lua_rawlen(L, -1), common = 0, kept = 0;
    if (n > 0) list = calloc(n + 2, sizeof *list);
    for (size_t i = 1; list != NULL && i <= n; i++) {
      lua_rawgeti(L, -1, (lua_Integer)i);
      const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
      if ((list[kept + 1] = strdup(text)) != NULL) kept++;
      if (kept == 1) common = strlen(text);
      while (kept > 1 && strncmp(text, list[1], common) != 0) common--;
      lua_pop(L, 1);
    }
    if (kept > 0) list[0] = strndup(list[1], common);
    if (list != NULL && list[0] == NULL) {
      for (size_t i = 1; i <= kept; i++) free(list[i]);
      free(list);
      list = NULL;
    }
  }
  lua_settop(L, top);
  return list;
}

static int editline_read(lua_State *L) {
  const char *prompt = luaL_checkstring(L, 1);
  struct sigaction action = {.sa_handler = on_interrupt}, old;
  sigset_t block, mask;
  sigemptyset(&action.sa_mask);
  sigemptyset(&block);
  sigaddset(&block, SIGINT);
  reader = pthread_self();
  /* SIGINT is unblocked only while ppoll waits, so none is missed between the test and the wait. */
  pthread_sigmask(SIG_BLOCK, &block, &mask);
  sigaction(SIGINT, &action, &old);
  sigset_t waiting = mask;
  sigdelset(&waiting, SIGINT);
  interrupted = 0;
  line_done = 0;
  line = NULL;
  completing = L;
  rl_catch_signals = 0;
  rl_completer_word_break_characters = word_breaks;
  rl_attempted_completion_function = complete;
  rl_callback_handler_install(prompt, on_line);
  while (!line_done && !interrupted) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = ppoll(&input, 1, NULL, &waiting);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0 || !(input.revents & POLLIN)) break; /* the terminal is gone */
    rl_callback_read_char();
  }
  if (!line_done) rl_callback_handler_remove();
  completing = NULL;
  sigaction(SIGINT, &old, NULL);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  if (interrupted)
    lua_pushboolean(L, 0);
  else
    lua_pushstring(L, line); /* nil for NULL */
  free(line);
  return 1;
}

static int editline_completer(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_unref(L, LUA_REGISTRYINDEX, completer_ref);
  lua_settop(L, 1);
  completer_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static int editline_add(lua_State *L) {
  add_history(luaL_checkstring(L, 1));
  return 0;
}

static int editline_load(lua_State *L) {
  rl_initialize();
  lua_pushboolean(L, read_history(luaL_checkstring(L, 1)) == 0);
  return 1;
}

static int editline_save(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  stifle_history((int)luaL_optinteger(L, 2, 1000));
  lua_pushboolean(L, write_history(path) == 0);
  return 1;
}

/* ---- Code that Ctrl-C interrupts ---- */

static volatile sig_atomic_t stopping; /* whether the running code must stop */
static volatile sig_atomic_t unheard; /* how often Ctrl-C was pressed since Lua code last noticed */

static const int between = 1000; /* Lua instructions between two tests of the flag */

/* A hook of the state and, since coroutines inherit the hook of the thread that creates them, of
 * its coroutines. After its first error it raises one at every instruction, so that a loop that
 * catches errors ends too. */
static void stop(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (!stopping) return;
  unheard = 0;
  lua_sethook(L, stop, LUA_MASKCOUNT, 1);
  luaL_error(L, "interrupted!");
}

/* Lua calls no hook while C code runs, in __gc, nor while xpcall's handler handles a hook's error.
 * So when the code has not reacted to two Ctrl-C, a third one ends the process. */
static void on_interrupt_running(int signal) {
  if (!pthread_equal(pthread_self(), reader)) {
    pthread_kill(reader, signal);
    return;
  }
  stopping = 1;
  if (++unheard < 2) return;
  static const char warning[] =
      "\nmptl: the running code does not react to Ctrl-C; another one ends the program\n";
  if (write(STDERR_FILENO, warning, sizeof warning - 1) < 0) return;
  struct sigaction usual = {.sa_handler = SIG_DFL};
  sigaction(signal, &usual, NULL);
}

static int editline_call(lua_State *L) {
  luaL_checkany(L, 1);
  struct sigaction action = {.sa_handler = on_interrupt_running}, old;
  sigemptyset(&action.sa_mask);
  reader = pthread_self();
  stopping = unheard = 0;
  sigaction(SIGINT, &action, &old);
  lua_sethook(L, stop, LUA_MASKCOUNT, between);
  int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
  lua_sethook(L, NULL, 0, 0);
  sigaction(SIGINT, &old, NULL);
  lua_pushboolean(L, status == LUA_OK);
  lua_insert(L, 1);
  return lua_gettop(L);
}

static int editline_guard(lua_State *L) {
  signal(SIGINT, lua_toboolean(L, 1) ? SIG_IGN : SIG_DFL);
  return 0;
}

static int editline_interrupted(lua_State *L) {
  lua_pushboolean(L, stopping != 0);
  return 1;
}

void mptl_bind_editline(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"read", editline_read},
      {"completer", editline_completer},
      {"add", editline_add},
      {"load", editline_load},
      {"save", editline_save},
      {"call", editline_call},
      {"interrupted", editline_interrupted},
      {"guard", editline_guard},
      {NULL, NULL},
  };
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "editline");
}
