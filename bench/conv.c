/* GFLOP/s of the passes of convolutions and linear operators on this machine, with oneDNN's names
 * of its implementations.
 *
 *   cmake --build build --target bench_conv && OMP_NUM_THREADS=2 build/bin/bench_conv [batch]
 *
 * Each pass is timed with its packing (forward, backward data) or unpacking (backward weights), as
 * in a training step. The column in percent is the share of packing. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/dnn.h"
#include "conv_rows.h"
#include "core/clock.h"
#include "mptl/machine.h"

#define MUST(expr)                                     \
  do {                                                 \
    if ((expr) == MPTL_OK) break;                      \
    fprintf(stderr, "bench_conv: %s\n", mptl_error()); \
    exit(1);                                           \
  } while (0)

static void *ones(size_t count) { /* 1.0f; as two bf16 numbers: 0 and 1 */
  float *x = aligned_alloc(64, (count * 4 + 64) / 64 * 64);
  if (x == NULL) abort();
  for (size_t i = 0; i < count; i++) x[i] = 1;
  return x;
}

typedef struct buffers {
  float *x, *w, *y, *bias;
  void *packed[2], *scratch;
} buffers;

static void once(mptl_dnn *op, mptl_pass pass, buffers *b, const mptl_conv_shape *s, bool pack) {
  float *bias = s->bias ? b->bias : NULL;
  if (pack && pass != MPTL_BACKWARD_WEIGHTS) MUST(mptl_dnn_pack(op, pass, b->packed[pass], b->w));
  if (pass == MPTL_FORWARD) MUST(mptl_dnn_forward(op, b->y, b->x, b->packed[0], bias));
  if (pass == MPTL_BACKWARD_DATA) MUST(mptl_dnn_backward_data(op, b->x, b->y, b->packed[1]));
  if (pass == MPTL_BACKWARD_WEIGHTS) MUST(mptl_dnn_backward_weights(op, b->w, bias, b->x, b->y));
}

/* Seconds of the fastest of several calls; slower ones shared the machine with other work. */
static double fastest(mptl_dnn *op, mptl_pass pass, buffers *b, const mptl_conv_shape *s,
                      bool pack) {
  double best = 1e9, start = mptl_now();
  once(op, pass, b, s, pack);
  for (int i = 0; i < 3 || (i < 200 && mptl_now() - start < 0.3); i++) {
    double t = mptl_now();
    once(op, pass, b, s, pack);
    t = mptl_now() - t;
    if (t < best) best = t;
  }
  return best;
}

static void time_one(const mptl_conv_shape *s, bool linear, mptl_compute compute,
                     bool input_gradient) {
  const mptl_compute computes[MPTL_PASSES] = {compute, input_gradient ? compute : MPTL_COMPUTE_NONE,
                                              compute};
  int threads = mptl_default_threads("");
  const mptl_linear_shape ls = {s->n, s->ic, s->ih, s->iw, s->oc, s->bias};
  mptl_dnn *op;
  double t = mptl_now();
  MUST(linear ? mptl_dnn_linear_create(&op, threads, &ls, computes)
              : mptl_dnn_conv_create(&op, threads, s, computes));
  double created = mptl_now() - t;
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(s);
  double flops = bench_flops(s);
  buffers b = {ones(sizes.n[MPTL_X]),
               ones(sizes.n[MPTL_W]),
               ones(sizes.n[MPTL_Y]),
               ones((size_t)s->oc),
               {ones(mptl_dnn_packed_bytes(op, 0) / 4), ones(mptl_dnn_packed_bytes(op, 1) / 4)},
               ones(mptl_dnn_scratch_bytes(op) / 4)};
  mptl_dnn_use_scratch(op, b.scratch);
  printf("%-4s %3d->%-4d %2dx%-2d k%d s%d g%-3d", compute == MPTL_COMPUTE_F32 ? "f32" : "bf16",
         s->ic, s->oc, s->ih, s->iw, s->kh, s->sh, s->groups);
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    if (computes[pass] == MPTL_COMPUTE_NONE) {
      printf(" | %-42s", "-");
      continue;
    }
    double whole = fastest(op, (mptl_pass)pass, &b, s, true),
           bare = fastest(op, (mptl_pass)pass, &b, s, false);
    printf(" | %7.3f ms %5.0f GF/s %4.1f%% %-13.13s", whole * 1e3, flops / whole * 1e-9,
           pass == MPTL_BACKWARD_WEIGHTS ? 0 : 100 * (whole - bare) / whole,
           mptl_dnn_implementation(op, (mptl_pass)pass));
  }
  printf(" | create %5.2f ms, packed %5.1f MB, scratch %6.1f MB\n", created * 1e3,
         1e-6 * (double)(mptl_dnn_packed_bytes(op, 0) + mptl_dnn_packed_bytes(op, 1)),
         1e-6 * (double)mptl_dnn_scratch_bytes(op));
  fflush(stdout);
  mptl_dnn_destroy(op);
  free(b.x), free(b.w), free(b.y), free(b.bias), free(b.packed[0]), free(b.packed[1]),
      free(b.scratch);
}

int main(int argc, char **argv) {
  const int n = argc > 1 ? atoi(argv[1]) : 128;
  printf("oneDNN %s, batch %d\n", mptl_dnn_version(), n);
  for (int compute = MPTL_COMPUTE_F32; compute <= MPTL_COMPUTE_BF16; compute++) {
    if (!mptl_dnn_supports((mptl_compute)compute)) continue;
    for (int i = 0; i < BENCH_ROWS; i++) {
      const mptl_conv_shape s = bench_shape(&bench_rows[i], n);
      time_one(&s, bench_rows[i].linear, (mptl_compute)compute, !bench_rows[i].stem);
    }
  }
  return 0;
}
