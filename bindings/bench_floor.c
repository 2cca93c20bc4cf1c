/* What a device can do at most: the floors that a step's operators are measured against.
 *
 *   core.floor{ device = "cpu", threads =, seconds = 0.3 } -> { copy_gb_per_s =, f32_gflop_per_s =, bf16_gflop_per_s =, ... }
 *
 * The best that is found in so many seconds for each: copying an array larger than the caches (bytes read plus bytes written), and a
 * large convolution in each type that the device has units for. threads: the CPU's.
 */
#include <omp.h>
#include <stdio.h>

#include "bindings/bind.h"
#include "mptl/device.h"

static int measure_floor(lua_State *L) {
  static const char *const fields[] = {"device", "threads", "seconds", NULL};
  bind_check_fields(L, 1, fields);
  int threads = (int)bind_opt_integer(L, 1, "threads", omp_get_max_threads()), before = omp_get_max_threads();
  double seconds = bind_opt_number(L, 1, "seconds", 0.3);
  const mptl_device *device = bind_device_field(L, 1);
  mptl_floor floor;
  if (threads < 1 || threads > 1024) luaL_error(L, "floor: %d threads, accepted are 1 to 1024", threads);
  omp_set_num_threads(threads);
  mptl_status status = mptl_device_measure(&floor, device, seconds);
  omp_set_num_threads(before);
  bind_check(L, status);
  lua_newtable(L);
  bind_set_number(L, "copy_gb_per_s", floor.copy_gb_per_s);
  for (int i = 0; i < floor.types; i++) {
    char field[32];
    snprintf(field, sizeof field, "%s_gflop_per_s", floor.multiply[i].name);
    bind_set_number(L, field, floor.multiply[i].gflop_per_s);
  }
  return 1;
}

void mptl_bind_bench_floor(lua_State *L) {
  lua_pushcfunction(L, measure_floor);
  lua_setfield(L, -2, "floor");
}
