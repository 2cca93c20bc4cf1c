/* GFLOP/s of the passes of convolutions in binary32 (engine/backend/cpu/conv.h) or in bf16
 * (conv_bf16.h), beside the peak of multiply-adds and beside oneDNN, in turns in one run:
 *
 *   cmake --build build --target bench_products && build/bin/bench_products [f32|bf16 [batch
 *     [threads [row]]]]
 *
 * MPTL_ISA=avx2 together with ONEDNN_MAX_CPU_ISA=AVX2 compares them in narrower instructions,
 * MPTL_ISA=avx512_bf16 with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 leaves AMX out. In bf16, our passes
 * read and write codes of 8 bits, as in training: they decode, and forward and by data round with
 * statistics; oneDNN reads bf16 and writes binary32. Each pass includes bringing weights into its
 * order. For each pass: our GFLOP/s, their share of the peak, and how many times as fast as oneDNN
 * we are. Figures are of the fastest of several turns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conv_bf16.h"
#include "conv_dnn.h"
#include "conv_rows.h"
#include "core/clock.h"
#include "mptl/device.h"
#include "mptl/isa.h"
#include "mptl/machine.h"

static const double turn_seconds = 0.5;

/* GFLOP/s of multiply-adds in registers, on all threads. */
static double find_peak(const char *type, int threads) {
  mptl_device *device;
  mptl_peaks peaks = {0};
  MUST(mptl_device_open(&device, "cpu", threads));
  MUST(mptl_device_find_peaks(&peaks, device, turn_seconds));
  mptl_device_close(device);
  for (int i = 0; i < peaks.types; i++)
    if (strcmp(peaks.multiply[i].name, type) == 0) return peaks.multiply[i].gflop_per_s;
  fprintf(stderr, "bench_products: %s has no products in %s\n", mptl_isa_name(), type);
  exit(2);
}

/* Our passes of either type. */
typedef struct pass_of_ours {
  mptl_conv *f32;
  mptl_conv_bf16 *bf16; /* NULL: f32 */
  void *packed, *scratch;
} pass_of_ours;

static pass_of_ours create_ours(bool bf16, int threads, const mptl_conv_shape *s, mptl_pass pass,
                                const mptl_sink *result) {
  pass_of_ours o = {.f32 = NULL};
  if (bf16) {
    const unsigned parts[2] = {1, 1};
    MUST(mptl_conv_bf16_create(&o.bf16, mptl_bf16(), threads, s, pass, parts));
    o.packed = bench_ones(mptl_conv_bf16_packed_bytes(o.bf16) / sizeof(float));
    o.scratch = bench_ones(mptl_conv_bf16_scratch_bytes(o.bf16) / sizeof(float));
  } else {
    MUST(mptl_conv_create(&o.f32, threads, s, pass));
    o.packed = bench_ones(mptl_conv_packed_bytes(o.f32) / sizeof(float));
    o.scratch = bench_ones(mptl_conv_scratch_bytes(o.f32, sizeof(float), result) / sizeof(float));
  }
  return o;
}

static void destroy_ours(pass_of_ours *o) {
  mptl_conv_destroy(o->f32);
  mptl_conv_bf16_destroy(o->bf16);
  free(o->packed), free(o->scratch);
}

static void run_bf16(const pass_of_ours *o, mptl_pass pass, bench_buffers *b,
                     const mptl_conv_shape *s, const mptl_sink *result,
                     const mptl_rounder *narrow) {
  float *bias = s->bias ? b->bias : NULL;
  const mptl_source x = {b->x, 1, narrow}, y = {b->y, 1, narrow};

  if (pass != MPTL_BACKWARD_WEIGHTS) mptl_conv_bf16_pack(o->bf16, o->packed, b->w);
  if (pass == MPTL_FORWARD)
    mptl_conv_bf16_forward(o->bf16, result, &x, o->packed, bias, o->scratch);
  if (pass == MPTL_BACKWARD_DATA)
    mptl_conv_bf16_backward_data(o->bf16, result, &y, o->packed, o->scratch);
  if (pass == MPTL_BACKWARD_WEIGHTS)
    mptl_conv_bf16_backward_weights(o->bf16, b->w, bias, &x, &y, o->scratch);
}

static void run_f32(const pass_of_ours *o, mptl_pass pass, bench_buffers *b,
                    const mptl_conv_shape *s, const mptl_sink *result) {
  float *bias = s->bias ? b->bias : NULL;
  const mptl_source x = {b->x, sizeof(float), NULL}, y = {b->y, sizeof(float), NULL};
  if (pass != MPTL_BACKWARD_WEIGHTS) mptl_conv_pack(o->f32, o->packed, b->w);
  if (pass == MPTL_FORWARD) mptl_conv_forward(o->f32, result, &x, o->packed, bias, o->scratch);
  if (pass == MPTL_BACKWARD_DATA)
    mptl_conv_backward_data(o->f32, result, &y, o->packed, o->scratch);
  if (pass == MPTL_BACKWARD_WEIGHTS)
    mptl_conv_backward_weights(o->f32, b->w, bias, &x, &y, o->scratch);
}

static void time_pass(bool bf16, const mptl_conv_shape *s, mptl_pass pass, int threads,
                      double peak) {
  mptl_compute computes[MPTL_PASSES] = {MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  double best = 1e9, dnn_best = 1e9;
  mptl_dnn *op;
  computes[pass] = bf16 ? MPTL_COMPUTE_BF16 : MPTL_COMPUTE_F32;
  MUST(mptl_dnn_conv_create(&op, threads, s, computes));
  bench_buffers b = bench_buffers_create(s, op);
  mptl_format format;
  mptl_rounder exact, narrow;
  MUST(mptl_format_parse(&format, "fp32"));
  mptl_rounder_init(&exact, format, MPTL_NEAREST_EVEN, MPTL_INF);
  MUST(mptl_format_parse(&format, "FP(4,3,4)"));
  mptl_rounder_init(&narrow, format, MPTL_NEAREST_EVEN, MPTL_INF);
  mptl_round_stats stats = {0};
  const mptl_sink result = {.data = pass == MPTL_FORWARD ? b.y : b.x,
                            .size = bf16 ? 1 : sizeof(float),
                            .rounder = bf16 ? &narrow : &exact,
                            .stats = &stats};
  pass_of_ours ours = create_ours(bf16, threads, s, pass, &result);
  const double start = mptl_now();
  for (int i = 0; i < 3 || mptl_now() - start < turn_seconds; i++) {
    double from = mptl_now(), between;
    if (bf16)
      run_bf16(&ours, pass, &b, s, &result, &narrow);
    else
      run_f32(&ours, pass, &b, s, &result);
    between = mptl_now();
    bench_dnn(op, pass, &b, s, true);
    const double end = mptl_now();
    if (i > 0 && between - from < best) best = between - from;
    if (i > 0 && end - between < dnn_best) dnn_best = end - between;
  }
  const double rate = 1e-9 * bench_flops(s) / best;
  printf(" | %7.1f %4.0f%% %5.2f", rate, 100 * rate / peak, dnn_best / best);
  fflush(stdout);
  destroy_ours(&ours);
  mptl_dnn_destroy(op);
  bench_buffers_destroy(&b);
}

int main(int argc, char **argv) {
  const char *type = argc > 1 ? argv[1] : "f32";
  const int batch = argc > 2 ? atoi(argv[2]) : 32;
  const int threads = argc > 3 ? atoi(argv[3]) : mptl_default_threads("");
  const int only = argc > 4 ? atoi(argv[4]) : -1; /* of bench_rows */
  const bool bf16 = strcmp(type, "bf16") == 0;
  if ((!bf16 && strcmp(type, "f32") != 0) || batch < 1 || threads < 1 ||
      threads > MPTL_MAX_THREADS) {
    fprintf(stderr, "usage: bench_products [f32|bf16 [batch [threads [row]]]]\n");
    return 2;
  }
  const double peak = find_peak(type, threads);
  printf("%s, %s, %d threads, batch %d: peak %.1f GFLOP/s\n%-26s | %-19s | %-19s | %-19s\n", type,
         mptl_isa_name(), threads, batch, peak, "", "forward", "backward data", "backward weights");
  for (int i = 0; i < BENCH_ROWS; i++) {
    const mptl_conv_shape s = bench_shape(&bench_rows[i], batch);
    if ((bf16 && s.groups > 1) || (only >= 0 && only != i)) continue;
    printf("%4d -> %-4d %2dx%-2d k%d s%d g%-3d", s.ic, s.oc, s.ih, s.iw, s.kh, s.sh, s.groups);
    for (int pass = 0; pass < MPTL_PASSES; pass++)
      if (pass == MPTL_BACKWARD_DATA && bench_rows[i].stem)
        printf(" | %-19s", "-");
      else
        time_pass(bf16, &s, (mptl_pass)pass, threads, peak);
    printf("\n");
  }
  return 0;
}
