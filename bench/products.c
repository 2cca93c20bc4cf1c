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

#include "backend/cpu/conv.h"
#include "backend/cpu/dnn.h"
#include "conv_rows.h"
#include "core/clock.h"
#include "core/memory.h"
#include "kernels/cpu/products.h"
#include "mptl/isa.h"
#include "mptl/machine.h"

static const double turn_seconds = 0.5;

#define MUST(expr)                                         \
  do {                                                     \
    if ((expr) == MPTL_OK) break;                          \
    fprintf(stderr, "bench_products: %s\n", mptl_error()); \
    exit(1);                                               \
  } while (0)

static float *numbers(size_t count) {
  float *x = aligned_alloc(64, mptl_aligned((count + 1) * sizeof *x));
  if (x == NULL) abort();
  for (size_t i = 0; i < count; i++) x[i] = (float)(i % 17) / 16 - 0.5f;
  return x;
}

/* GFLOP/s of multiply-adds in registers, on all threads. */
static double find_peak(int threads) {
  const mptl_product_kernels *kernels = mptl_products();
  const size_t n = 1 << 20;
  double best = 1e9;
  for (int turn = 0; turn < 20; turn++) {
    float sum = 0;
    double start = mptl_now();
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    sum += kernels->multiply_adds(n);
    double seconds = mptl_now() - start;
    if (sum >= 0 && seconds < best) best = seconds;
  }
  return 2e-9 * (double)n * kernels->rows * kernels->vectors * kernels->lanes * threads / best;
}

typedef struct buffers {
  float *x, *w, *y, *bias, *dbias, *packed, *dnn_packed, *scratch;
} buffers;

static void ours(const mptl_conv *conv, mptl_pass pass, const mptl_conv_shape *s, buffers *b) {
  if (pass != MPTL_BACKWARD_WEIGHTS) mptl_conv_pack(conv, b->packed, b->w);
  if (pass == MPTL_FORWARD)
    mptl_conv_forward(conv, b->y, b->x, b->packed, s->bias ? b->bias : NULL, b->scratch);
  if (pass == MPTL_BACKWARD_DATA) mptl_conv_backward_data(conv, b->x, b->y, b->packed, b->scratch);
  if (pass == MPTL_BACKWARD_WEIGHTS)
    mptl_conv_backward_weights(conv, b->w, s->bias ? b->dbias : NULL, b->x, b->y, b->scratch);
}

static void dnn(mptl_dnn *op, mptl_pass pass, const mptl_conv_shape *s, buffers *b) {
  if (pass != MPTL_BACKWARD_WEIGHTS) MUST(mptl_dnn_pack(op, pass, b->dnn_packed, b->w));
  if (pass == MPTL_FORWARD)
    MUST(mptl_dnn_forward(op, b->y, b->x, b->dnn_packed, s->bias ? b->bias : NULL));
  if (pass == MPTL_BACKWARD_DATA) MUST(mptl_dnn_backward_data(op, b->x, b->y, b->dnn_packed));
  if (pass == MPTL_BACKWARD_WEIGHTS)
    MUST(mptl_dnn_backward_weights(op, b->w, s->bias ? b->dbias : NULL, b->x, b->y));
}

static void time_pass(const mptl_conv_shape *s, mptl_pass pass, int threads, double peak) {
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(s);
  mptl_compute computes[MPTL_PASSES] = {MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE, MPTL_COMPUTE_NONE};
  double best = 1e9, dnn_best = 1e9;
  mptl_conv *conv;
  mptl_dnn *op;
  computes[pass] = MPTL_COMPUTE_F32;
  MUST(mptl_conv_create(&conv, threads, s, pass));
  MUST(mptl_dnn_conv_create(&op, threads, s, computes));
  size_t dnn_packed = pass == MPTL_BACKWARD_WEIGHTS ? 0 : mptl_dnn_packed_bytes(op, pass);
  size_t scratch = mptl_conv_scratch_bytes(conv), dnn_scratch = mptl_dnn_scratch_bytes(op);
  buffers b = {numbers(sizes.n[MPTL_X]),
               numbers(sizes.n[MPTL_W]),
               numbers(sizes.n[MPTL_Y]),
               numbers((size_t)s->oc),
               numbers((size_t)s->oc),
               numbers(mptl_conv_packed_bytes(conv) / sizeof(float)),
               numbers(dnn_packed / sizeof(float)),
               numbers((scratch > dnn_scratch ? scratch : dnn_scratch) / sizeof(float))};
  mptl_dnn_use_scratch(op, b.scratch);
  const double start = mptl_now();
  for (int i = 0; i < 3 || mptl_now() - start < turn_seconds; i++) {
    double from = mptl_now(), between;
    ours(conv, pass, s, &b);
    between = mptl_now();
    dnn(op, pass, s, &b);
    const double end = mptl_now();
    if (i > 0 && between - from < best) best = between - from;
    if (i > 0 && end - between < dnn_best) dnn_best = end - between;
  }
  const double rate = 1e-9 * bench_flops(s) / best;
  printf(" | %7.1f %4.0f%% %5.2f", rate, 100 * rate / peak, dnn_best / best);
  fflush(stdout);
  mptl_conv_destroy(conv);
  mptl_dnn_destroy(op);
  free(b.x), free(b.w), free(b.y), free(b.bias), free(b.dbias);
  free(b.packed), free(b.dnn_packed), free(b.scratch);
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
