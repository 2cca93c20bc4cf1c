/* GFLOP/s of the passes of convolutions and linear operators on this machine, with oneDNN's names
 * of its implementations.
 *
 *   cmake --build build --target bench_conv && OMP_NUM_THREADS=2 build/bin/bench_conv [batch]
 *
 * Each pass is timed with its packing (forward, backward data) or unpacking (backward weights), as
 * in a training step. The column in percent is the share of packing. */
#include <stdio.h>
#include <stdlib.h>

#include "conv_dnn.h"
#include "conv_rows.h"
#include "core/clock.h"
#include "mptl/machine.h"

/* Seconds of the fastest of several calls; slower ones shared the machine with other work. */
static double fastest(mptl_dnn *op, mptl_pass pass, bench_buffers *b, const mptl_conv_shape *s,
                      bool pack) {
  double best = 1e9, start = mptl_now();
  bench_dnn(op, pass, b, s, pack);
  for (int i = 0; i < 3 || (i < 200 && mptl_now() - start < 0.3); i++) {
    double t = mptl_now();
    bench_dnn(op, pass, b, s, pack);
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
  double flops = bench_flops(s);
  bench_buffers b = bench_buffers_create(s, op);
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
  bench_buffers_destroy(&b);
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
