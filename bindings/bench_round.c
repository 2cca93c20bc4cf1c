/* Measures the speed of rounding, and of memcpy of the same array.
 *
 *   core.bench_round{ format =, mode =, elements =, threads =, seconds = } ->
 *     { gelem_per_s, gb_per_s, memcpy_gb_per_s, encode_gb_per_s, decode_gb_per_s }
 *     GB are bytes read plus bytes written. Each number is the median of its repetitions; the kinds
 *     of work take turns for `seconds` (default 2)
 */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "bench/round_values.h"
#include "bindings/bind.h"
#include "core/clock.h"
#include "mptl/round.h"

enum { ROUND, COPY, ENCODE, DECODE, KINDS, MOST = 1000 };

typedef struct bench {
  mptl_rounder rounder;
  float *src, *dst;
  size_t n;
  int threads;
} bench;

/* The elements of thread t, in whole cache lines. */
static void share(const bench *b, int t, size_t *from, size_t *count) {
  size_t lines = (b->n + 63) / 64, first = lines * (size_t)t / (size_t)b->threads * 64;
  size_t last = lines * ((size_t)t + 1) / (size_t)b->threads * 64;
  *from = first < b->n ? first : b->n;
  *count = (last < b->n ? last : b->n) - *from;
}

static void fill(bench *b) {
#pragma omp parallel for num_threads(b->threads) schedule(static)
  for (size_t i = 0; i < b->n; i++) {
    b->src[i] = mptl_bench_value(i);
    b->dst[i] = 0;
  }
}

static double time_once(const bench *b, int kind) {
  mptl_key key = mptl_make_key(2, MPTL_STREAM_ROUND, 0, 0);
  size_t size = mptl_code_size(b->rounder.format);
  double start = mptl_now();
#pragma omp parallel num_threads(b->threads)
  {
    size_t from, count;
    mptl_round_stats stats = {0};
    share(b, omp_get_thread_num(), &from, &count);
    char *codes = (char *)b->dst + from * size;
    switch (kind) {
      case ROUND:
        mptl_round_f32(b->dst + from, b->src + from, count, &b->rounder, key, from, &stats);
        break;
      case COPY:
        memcpy(b->dst + from, b->src + from, count * sizeof(float));
        break;
      case ENCODE:
        mptl_encode_f32(codes, b->src + from, count, &b->rounder, key, from, &stats);
        break;
      case DECODE:
        mptl_decode_f32(b->dst + from, (const char *)b->src + from * size, count, &b->rounder);
        break;
      default:
        break;
    }
  }
  return mptl_now() - start;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static int bench_round(lua_State *L) {
  static const char *const fields[] = {"format", "mode", "elements", "threads", "seconds", NULL};
  bind_check_fields(L, 1, fields);
  bench b = {.n = (size_t)bind_opt_integer(L, 1, "elements", 32 << 20),
             .threads = (int)bind_opt_integer(L, 1, "threads", 1)};
  double seconds = bind_opt_number(L, 1, "seconds", 2);
  mptl_format format;
  mptl_rounding_mode mode;
  bind_check(L, mptl_format_parse(&format, bind_opt_string(L, 1, "format", "FP(4,3,4)")));
  bind_check(L, mptl_rounding_mode_parse(&mode, bind_opt_string(L, 1, "mode", "nearest_even")));
  mptl_rounder_init(&b.rounder, mptl_format_fit(format, 1), mode, MPTL_SATURATE);
  if (b.n < 1 || b.n > (size_t)1 << 40)
    luaL_error(L, "bench: %I elements, accepted are 1 to 2^40", (lua_Integer)b.n);
  if (b.threads < 1 || b.threads > 1024)
    luaL_error(L, "bench: %d threads, accepted are 1 to 1024", b.threads);

  mptl_tensor *src, *dst;
  int64_t dims = (int64_t)b.n;
  bind_check(L, mptl_tensor_create(&src, 1, &dims));
  bind_push_tensor(L, src);
  bind_check(L, mptl_tensor_create(&dst, 1, &dims));
  bind_push_tensor(L, dst);
  b.src = src->data, b.dst = dst->data;
  fill(&b);

  double times[KINDS][MOST];
  int rounds = 0;
  for (double start = mptl_now(); rounds < 3 || (rounds < MOST && mptl_now() - start < seconds);
       rounds++)
    for (int kind = 0; kind < KINDS; kind++) times[kind][rounds] = time_once(&b, kind);
  double size = (double)mptl_code_size(b.rounder.format), n = (double)b.n * 1e-9, median[KINDS];
  for (int kind = 0; kind < KINDS; kind++) {
    qsort(times[kind], (size_t)rounds, sizeof(double), ascending);
    median[kind] = times[kind][rounds / 2];
  }
  lua_newtable(L);
  bind_set_number(L, "gelem_per_s", n / median[ROUND]);
  bind_set_number(L, "gb_per_s", 8 * n / median[ROUND]);
  bind_set_number(L, "memcpy_gb_per_s", 8 * n / median[COPY]);
  bind_set_number(L, "encode_gb_per_s", (4 + size) * n / median[ENCODE]);
  bind_set_number(L, "decode_gb_per_s", (4 + size) * n / median[DECODE]);
  return 1;
}

void mptl_bind_bench_round(lua_State *L) {
  lua_pushcfunction(L, bench_round);
  lua_setfield(L, -2, "bench_round");
}
