/* Peaks: the most that a device can do. `mptl profile` computes floors from them.
 *
 *   core.peaks{device="cpu", threads=, seconds=0.3}
 *     -> {copy_gb_per_s=, f32_gflop_per_s=, bf16_gflop_per_s=, ...}
 *
 * Measures each of them for `seconds`: copying an array larger than the caches (bytes read plus
 * bytes written), and a large convolution in each type for which the device has units. The best
 * repetition counts. threads: for the CPU.
 */
#include <stdio.h>
#include <string.h>

#include "bindings/bind.h"
#include "mptl/device.h"
#include "mptl/machine.h"

static int core_peaks(lua_State *L) {
  static const char *const fields[] = {"device", "threads", "seconds", NULL};
  bind_check_fields(L, 1, fields);
  lua_Integer threads = bind_opt_integer(L, 1, "threads", bind_threads(L));
  double seconds = bind_opt_number(L, 1, "seconds", 0.3);
  mptl_peaks peaks;
  if (threads < 1 || threads > MPTL_MAX_THREADS)
    luaL_error(L, "peaks: %I threads, accepted are 1 to %d", threads, MPTL_MAX_THREADS);
  mptl_device *device = mptl_device_retain(bind_device_field(L, 1));
  if (strcmp(mptl_device_name(device), "cpu") == 0) {
    mptl_device_close(device);
    bind_check(L, mptl_device_open(&device, "cpu", (int)threads));
  }
  mptl_status status = mptl_device_find_peaks(&peaks, device, seconds);
  mptl_device_close(device);
  bind_check(L, status);
  lua_newtable(L);
  bind_set_number(L, "copy_gb_per_s", peaks.copy_gb_per_s);
  for (int i = 0; i < peaks.types; i++) {
    char field[32];
    snprintf(field, sizeof field, "%s_gflop_per_s", peaks.multiply[i].name);
    bind_set_number(L, field, peaks.multiply[i].gflop_per_s);
  }
  return 1;
}

void mptl_bind_peaks(lua_State *L) {
  lua_pushcfunction(L, core_peaks);
  lua_setfield(L, -2, "peaks");
}
