/* GFLOP/s of the binary32 passes of convolutions (engine/backend/cpu/conv.h), beside the peak of
 * multiply-adds and beside oneDNN, in turns in one run:
 *
 *   cmake --build build --target bench_products && build/bin/bench_products [batch [threads]]
 *
 * MPTL_ISA=avx2 together with ONEDNN_MAX_CPU_ISA=AVX2 compares them in narrower instructions. Each
 * pass includes bringing weights into its order. For each pass: our GFLOP/s, their share of the
 * peak, and how many times as fast as oneDNN we are. Figures are of the fastest of several
 * turns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conv.h"
#include "conv_dnn.h"
#include "conv_rows.h"
#include "core/clock.h"
#include "mptl/device.h"
#include "mptl/isa.h"
#include "mptl/machine.h"

static const double turn_seconds = 0.5;

/* GFLOP/s of multiply-adds in registers, on all threads. */
static double find_peak(int threads) {
  mptl_device *device;
  mptl_peaks peaks = {0};
  MUST(mptl_device_open(&device, "cpu", threads));
  MUST(mptl_device_find_peaks(&peaks, device, turn_seconds));
  mptl_device_close(device);
  for (int i = 0; i < peaks.types; i++)
    if (strcmp(peaks.multiply[i].name, "f32") == 0) return peaks.multiply[i].gflop_per_s;
  abort();
}

static void ours(const mptl_conv *conv, mptl_pass pass, bench_buffers *b, const mptl_conv_shape *s,
                 const mptl_sink *result, float *packed, void *scratch) {
  float *bias = s->bias ? b->bias : NULL;
  const mptl_source x = {b->x, sizeof(float), NULL}, y = {b->y, sizeof(float), NULL};
  if (pass != MPTL_BACKWARD_WEIGHTS) mptl_conv_pack(conv, packed, b->w);
  if (pass == MPTL_FORWARD) mptl_conv_forward(conv, result, &x, packed, bias, scratch);
  if (pass == MPTL_BACKWARD_DATA) mptl_conv_backward_data(conv, result, &y, packed, scratch);
  if (pass == MPTL_BACKWARD_WEIGHTS) mptl_conv_backward_weights(conv, b->w, bias, &x, &y, scratch);
}

static void time_pass(const mptl_conv_shape *s, mptl_pass pass, int threads, double peak) {
  mptl_compute computes[MPTL_PASSES] = {MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  double best = 1e9, dnn_best = 1e9;
  mptl_conv *conv;
  mptl_dnn *op;
  computes[pass] = MPTL_COMPUTE_F32;
  MUST(mptl_conv_create(&conv, threads, s, pass));
  MUST(mptl_dnn_conv_create(&op, threads, s, computes));
  bench_buffers b = bench_buffers_create(s, op);
  float *packed = bench_ones(mptl_conv_packed_bytes(conv) / sizeof(float));
  mptl_format format;
  mptl_rounder exact;
  MUST(mptl_format_parse(&format, "fp32"));
  mptl_rounder_init(&exact, format, MPTL_NEAREST_EVEN, MPTL_INF);
  const mptl_sink result = {
      .data = pass == MPTL_FORWARD ? b.y : b.x, .size = sizeof(float), .rounder = &exact};
  float *scratch =
      bench_ones(mptl_conv_scratch_bytes(conv, sizeof(float), &result) / sizeof(float));
  const double start = mptl_now();
  for (int i = 0; i < 3 || mptl_now() - start < turn_seconds; i++) {
    double from = mptl_now(), between;
    ours(conv, pass, &b, s, &result, packed, scratch);
    between = mptl_now();
    bench_dnn(op, pass, &b, s, true);
    const double end = mptl_now();
    if (i > 0 && between - from < best) best = between - from;
    if (i > 0 && end - between < dnn_best) dnn_best = end - between;
  }
  const double rate = 1e-9 * bench_flops(s) / best;
  printf(" | %7.1f %4.0f%% %5.2f", rate, 100 * rate / peak, dnn_best / best);
  fflush(stdout);
  mptl_conv_destroy(conv);
  mptl_dnn_destroy(op);
  bench_buffers_destroy(&b);
  free(packed), free(scratch);
}

int main(int argc, char **argv) {
  const int batch = argc > 1 ? atoi(argv[1]) : 32;
  const int threads = argc > 2 ? atoi(argv[2]) : mptl_default_threads("");
  if (batch < 1 || threads < 1 || threads > MPTL_MAX_THREADS) {
    fprintf(stderr, "usage: bench_products [batch [threads]]\n");
    return 2;
  }
  const double peak = find_peak(threads);
  printf("%s, %d threads, batch %d: peak %.1f GFLOP/s\n%-26s | %-19s | %-19s | %-19s\n",
         mptl_isa_name(), threads, batch, peak, "", "forward", "backward data", "backward weights");
  for (int i = 0; i < BENCH_ROWS; i++) {
    const mptl_conv_shape s = bench_shape(&bench_rows[i], batch);
    printf("%4d -> %-4d %2dx%-2d k%d s%d g%-3d", s.ic, s.oc, s.ih, s.iw, s.kh, s.sh, s.groups);
    for (int pass = 0; pass < MPTL_PASSES; pass++)
      if (pass == MPTL_BACKWARD_DATA && bench_rows[i].stem)
        printf(" | %-19s", "-");
      else
        time_pass(&s, (mptl_pass)pass, threads, peak);
    printf("\n");
  }
  return 0;
}
