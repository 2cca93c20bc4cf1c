/* Devices, their libraries, and the types in which they compute.
 *
 *   core.device("auto" | "cpu" | "cuda" | "cuda:N") -> "cpu" | "cuda:N"   opens the device; an
 *     error says what is missing
 *   core.cuda() -> {libraries= text or nil, devices={text, ...}, missing= text if there is no
 * device} core.backends() -> { {name=, library=, version=}, ... } core.threads() -> threads of the
 * CPU core.set_threads(n)   for models made from then on; OMP_THREAD_LIMIT may allow fewer
 *   core.compute(format, format [, setting [, device [, channel groups [, parameters]]]])
 *     parameters: many if none are given
 *     -> "f32" | "tf32" | "bf16" | "2xbf16" | "4xbf16" | "fp8"   see mptl_compute_name
 *   core.compute_settings() -> the settings, {name, ...}
 *   core.memory() -> current, peak bytes;  core.memory_reset_peak()
 *
 * A Lua state has one device for each name. It opens a device at first use, and closes it at its
 * end.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/dnn.h"
#include "bindings/bind.h"
#include "mptl/machine.h"
#include "mptl/program.h"

#define DEVICE "mptl.Device"

/* The table of the state's devices has them by name, and the number of threads here. */
#define THREADS "threads"

/* Pushes the table of the state's devices. */
static void push_devices(lua_State *L) { luaL_getsubtable(L, LUA_REGISTRYINDEX, "mptl.devices"); }

int bind_threads(lua_State *L) {
  push_devices(L);
  lua_getfield(L, -1, THREADS);
  int threads = (int)lua_tointeger(L, -1);
  lua_pop(L, 2);
  return threads;
}

static int device_gc(lua_State *L) {
  mptl_device **box = luaL_checkudata(L, 1, DEVICE);
  mptl_device_close(*box);
  *box = NULL;
  return 0;
}

/* The device of that name in the table on top of the stack; NULL: it is not open. */
static mptl_device *find(lua_State *L, const char *name) {
  mptl_device **box = lua_getfield(L, -1, name) == LUA_TUSERDATA ? lua_touserdata(L, -1) : NULL;
  lua_pop(L, 1);
  return box != NULL ? *box : NULL;
}

/* "cuda" and "auto" are opened to learn their names. If a device of that name is open, the new one
 * is closed again. */
mptl_device *bind_device(lua_State *L, const char *name) {
  int threads = bind_threads(L);
  push_devices(L);
  mptl_device *device = find(L, name);
  if (device == NULL && (strcmp(name, "auto") == 0 || strcmp(name, "cuda") == 0))
    device = find(L, "cuda:0");
  if (device == NULL) {
    mptl_device **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, DEVICE);
    bind_check(L, mptl_device_open(box, name, threads));
    lua_insert(L, -2);
    device = find(L, mptl_device_name(*box));
    lua_insert(L, -2);
    if (device == NULL) {
      device = *box;
      lua_setfield(L, -2, mptl_device_name(device));
    } else {
      mptl_device_close(*box);
      *box = NULL;
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  return device;
}

mptl_device *bind_opt_device(lua_State *L, int index) {
  return bind_device(L, luaL_optstring(L, index, "cpu"));
}

mptl_device *bind_device_field(lua_State *L, int index) {
  return bind_device(L, bind_opt_string(L, index, "device", "cpu"));
}

static int device(lua_State *L) {
  lua_pushstring(L, mptl_device_name(bind_device(L, luaL_checkstring(L, 1))));
  return 1;
}

static int cuda(lua_State *L) {
  int count;
  lua_newtable(L);
  if (mptl_cuda_libraries() != NULL) bind_set_string(L, "libraries", mptl_cuda_libraries());
  if (mptl_cuda_count(&count) != MPTL_OK) bind_set_string(L, "missing", mptl_error());
  lua_createtable(L, count, 0);
  for (int i = 0; i < count; i++) {
    char text[160];
    bind_check(L, mptl_cuda_describe(i, text, sizeof text));
    lua_pushstring(L, text);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "devices");
  return 1;
}

/* { {name = "cpu", library = "oneDNN", version = "2.6.3"} } */
static int backends(lua_State *L) {
  lua_createtable(L, 1, 0);
  lua_createtable(L, 0, 3);
  bind_set_string(L, "name", "cpu");
  bind_set_string(L, "library", "oneDNN");
  bind_set_string(L, "version", mptl_dnn_version());
  lua_rawseti(L, -2, 1);
  return 1;
}

/* ---- Threads ---- */

static int threads(lua_State *L) {
  lua_pushinteger(L, mptl_device_threads(bind_device(L, "cpu")));
  return 1;
}

/* Forgets the open CPU, so that its next use opens it with n threads. */
static void set_threads(lua_State *L, lua_Integer n) {
  push_devices(L);
  bind_set_integer(L, THREADS, n);
  lua_pushnil(L);
  lua_setfield(L, -2, "cpu");
  lua_pop(L, 1);
}

static int set_threads_to(lua_State *L) {
  lua_Integer n = luaL_checkinteger(L, 1);
  if (n < 1 || n > MPTL_MAX_THREADS)
    luaL_error(L, "threads: %I, accepted are 1 to %d", n, MPTL_MAX_THREADS);
  set_threads(L, n);
  return 0;
}

/* ---- Types of products ---- */

mptl_compute_setting bind_check_compute(lua_State *L, const char *name) {
  return (mptl_compute_setting)bind_check_name(L, "compute", name, mptl_compute_setting_name);
}

static int compute(lua_State *L) {
  lua_Integer channel_groups = luaL_optinteger(L, 5, 1);
  luaL_argcheck(L, channel_groups >= 1 && channel_groups <= 1 << 24, 5,
                "channel groups: accepted are 1 to 16777216");
  lua_Integer parameters = luaL_optinteger(L, 6, LUA_MAXINTEGER);
  luaL_argcheck(L, parameters >= 0, 6, "parameters: must not be negative");
  lua_pushstring(
      L, mptl_compute_name(bind_opt_device(L, 4), bind_check_format(L, 1), bind_check_format(L, 2),
                           (int)channel_groups, (size_t)parameters,
                           bind_check_compute(L, luaL_optstring(L, 3, "auto"))));
  return 1;
}

static int compute_settings(lua_State *L) {
  bind_push_names(L, mptl_compute_setting_name);
  return 1;
}

/* ---- Memory ---- */

static int memory(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)mptl_memory_current());
  lua_pushinteger(L, (lua_Integer)mptl_memory_peak());
  return 2;
}

static int memory_reset_peak(lua_State *L) {
  (void)L;
  mptl_memory_reset_peak();
  return 0;
}

static const luaL_Reg functions[] = {
    {"device", device},
    {"cuda", cuda},
    {"backends", backends},
    {"threads", threads},
    {"set_threads", set_threads_to},
    {"compute", compute},
    {"compute_settings", compute_settings},
    {"memory", memory},
    {"memory_reset_peak", memory_reset_peak},
    {NULL, NULL},
};

void mptl_bind_device(lua_State *L) {
  bind_new_type(L, DEVICE, (const luaL_Reg[]){{NULL, NULL}}, device_gc);
  set_threads(L, mptl_default_threads(bind_system_root()));
  luaL_setfuncs(L, functions, 0);
}
