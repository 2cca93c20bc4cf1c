/* The machine: its processor, and what this process may use.
 *
 *   core.cpu() -> {model=, features={avx2=true, ...}}
 *   core.processors([root]) -> {online=, allowed= by affinity, quota= of control groups, or nil,
 *     quota_file=, usable=, asked= by OMP_NUM_THREADS, or nil}
 *   core.memory_limit([root]) -> bytes that this process can still allocate, where the limit is
 * from; nil if no limit is known
 *
 * root is put before /proc and /sys, for specs. The default is the environment variable
 * MPTL_SYSTEM_ROOT.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/bind.h"
#include "mptl/machine.h"

/* ---- Processor ---- */

static const char *const features[] = {"sse4_2",      "avx2",        "fma",         "f16c",
                                       "avx512f",     "avx512bw",    "avx512dq",    "avx512vl",
                                       "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
                                       "amx_bf16",    "amx_int8",    NULL};

/* Sets a field of the table on top of the stack for every word of the line that is in features. */
static void set_features(lua_State *L, char *words) {
  char *save, *word = strtok_r(words, " \t\n", &save);
  for (; word; word = strtok_r(NULL, " \t\n", &save))
    for (int i = 0; features[i]; i++)
      if (strcmp(word, features[i]) == 0) {
        lua_pushboolean(L, 1);
        lua_setfield(L, -2, word);
      }
}

static int machine_cpu(lua_State *L) {
  char *line = NULL, *model = NULL, *flags = NULL;
  size_t size = 0;
  FILE *f = fopen("/proc/cpuinfo", "r");
  while (f && (!model || !flags) && getline(&line, &size, f) > 0) {
    char *value = strchr(line, ':');
    if (!value) continue;
    value += 1 + (value[1] == ' ');
    value[strcspn(value, "\n")] = '\0';
    if (!model && strncmp(line, "model name", 10) == 0) model = strdup(value);
    if (!flags && strncmp(line, "flags", 5) == 0) flags = strdup(value);
  }
  if (f) fclose(f);
  free(line);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, model ? model : "unknown");
  lua_setfield(L, -2, "model");
  lua_newtable(L);
  if (flags) set_features(L, flags);
  lua_setfield(L, -2, "features");
  free(model);
  free(flags);
  return 1;
}

/* ---- What this process may use ---- */

const char *bind_system_root(void) {
  const char *root = getenv("MPTL_SYSTEM_ROOT");
  return root != NULL ? root : "";
}

static const char *opt_root(lua_State *L) { return luaL_optstring(L, 1, bind_system_root()); }

/* The number that OMP_NUM_THREADS begins with; 0 when it is not set. */
static long asked_threads(void) {
  const char *text = getenv("OMP_NUM_THREADS");
  long n = text != NULL ? strtol(text, NULL, 10) : 0;
  return n > 0 ? n : 0;
}

static int machine_processors(lua_State *L) {
  mptl_processors p = mptl_find_processors(opt_root(L));
  lua_createtable(L, 0, 6);
  bind_set_integer(L, "online", p.online);
  bind_set_integer(L, "allowed", p.allowed);
  bind_set_integer(L, "usable", p.usable);
  if (p.quota > 0) {
    bind_set_number(L, "quota", p.quota);
    bind_set_string(L, "quota_file", p.quota_file);
  }
  if (asked_threads() > 0) bind_set_integer(L, "asked", asked_threads());
  return 1;
}

static int machine_memory_limit(lua_State *L) {
  mptl_memory_limit limit = mptl_find_memory(opt_root(L));
  if (limit.bytes > INT64_MAX) return lua_pushnil(L), 1;
  lua_pushinteger(L, (lua_Integer)limit.bytes);
  lua_pushstring(L, limit.limiter);
  return 2;
}

void mptl_bind_machine(lua_State *L) {
  static const luaL_Reg functions[] = {{"cpu", machine_cpu},
                                       {"processors", machine_processors},
                                       {"memory_limit", machine_memory_limit},
                                       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
