/* What this machine can do at most: the floors that a step's operators are measured against.
 *
 *   core.floor{ threads =, seconds = 0.3 } -> { copy_gb_per_s =, f32_gflop_per_s =, bf16_gflop_per_s = }
 *
 * The fastest of repetitions: copying an array larger than the caches (bytes read plus bytes written), and a 3x3 convolution of 128
 * channels whose operands fit them, in each type; bf16_gflop_per_s is missing where there are no such units.
 */
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/dnn.h"
#include "bindings/bind.h"

enum { COPY_FLOATS = 16 << 20, IMAGES = 16, CHANNELS = 128, SIDE = 16, KERNEL = 3 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Memory that Lua collects, 64-byte aligned. */
static float *scratch(lua_State *L, size_t floats) {
  int64_t dims = (int64_t)floats;
  mptl_tensor *t;
  bind_check(L, mptl_tensor_create(&t, 1, &dims));
  bind_push_tensor(L, t);
  return t->data;
}

static double copy_rate(lua_State *L, int threads, double seconds) {
  float *from = scratch(L, COPY_FLOATS), *to = scratch(L, COPY_FLOATS);
  double best = 1e9, start = now();
  memset(to, 1, COPY_FLOATS * sizeof *to);
  do {
    double t = now();
#pragma omp parallel num_threads(threads)
    {
      size_t share = COPY_FLOATS / (size_t)omp_get_num_threads(), at = share * (size_t)omp_get_thread_num();
      memcpy(to + at, from + at, share * sizeof *to);
    }
    t = now() - t;
    if (t < best) best = t;
  } while (now() - start < seconds);
  lua_pop(L, 2);
  return 2e-9 * COPY_FLOATS * sizeof(float) / best;
}

static double multiply_rate(lua_State *L, mptl_compute type, double seconds) {
  mptl_conv_shape shape = {.n = IMAGES,
                           .ic = CHANNELS,
                           .ih = SIDE,
                           .iw = SIDE,
                           .oc = CHANNELS,
                           .oh = SIDE,
                           .ow = SIDE,
                           .kh = KERNEL,
                           .kw = KERNEL,
                           .sh = 1,
                           .sw = 1,
                           .ph = 1,
                           .pw = 1,
                           .dh = 1,
                           .dw = 1,
                           .groups = 1};
  mptl_dnn *dnn;
  mptl_compute compute[MPTL_PASSES] = {type, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  bind_check(L, mptl_dnn_conv_create(&dnn, &shape, compute));
  size_t values = (size_t)IMAGES * SIDE * SIDE * CHANNELS, weights = (size_t)CHANNELS * CHANNELS * KERNEL * KERNEL;
  float *x = scratch(L, values), *y = scratch(L, values), *w = scratch(L, weights);
  float *packed = scratch(L, mptl_dnn_packed_bytes(dnn, MPTL_FORWARD) / sizeof *packed + 1);
  mptl_dnn_use_scratch(dnn, scratch(L, mptl_dnn_scratch_bytes(dnn) / sizeof(float) + 1));
  double best = 1e9, start = now();
  mptl_status status = mptl_dnn_pack(dnn, MPTL_FORWARD, packed, w);
  do {
    double t = now();
    if (status == MPTL_OK) status = mptl_dnn_forward(dnn, y, x, packed, NULL);
    t = now() - t;
    if (t < best) best = t;
  } while (status == MPTL_OK && now() - start < seconds);
  mptl_dnn_destroy(dnn);
  bind_check(L, status);
  lua_pop(L, 5);
  return 2e-9 * (double)weights * IMAGES * SIDE * SIDE / best;
}

static int measure_floor(lua_State *L) {
  static const char *const fields[] = {"threads", "seconds", NULL};
  bind_check_fields(L, 1, fields);
  int threads = (int)bind_opt_integer(L, 1, "threads", omp_get_max_threads());
  double seconds = bind_opt_number(L, 1, "seconds", 0.3);
  if (threads < 1 || threads > 1024) luaL_error(L, "floor: %d threads, accepted are 1 to 1024", threads);
  int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  lua_settop(L, 1);
  lua_newtable(L);
  lua_insert(L, 1);
  double copy = copy_rate(L, threads, seconds), f32 = multiply_rate(L, MPTL_COMPUTE_F32, seconds), bf16 = 0;
  if (mptl_dnn_supports(MPTL_COMPUTE_BF16)) bf16 = multiply_rate(L, MPTL_COMPUTE_BF16, seconds);
  omp_set_num_threads(before);
  lua_settop(L, 1);
  bind_set_number(L, "copy_gb_per_s", copy);
  bind_set_number(L, "f32_gflop_per_s", f32);
  if (bf16 > 0) bind_set_number(L, "bf16_gflop_per_s", bf16);
  return 1;
}

void mptl_bind_bench_floor(lua_State *L) {
  lua_pushcfunction(L, measure_floor);
  lua_setfield(L, -2, "floor");
}
