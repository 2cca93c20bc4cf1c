/* A pass of a convolution by oneDNN, for the benchmarks of products. */
#ifndef MPTL_BENCH_CONV_DNN_H
#define MPTL_BENCH_CONV_DNN_H

#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/dnn.h"

#define MUST(expr)                                \
  do {                                            \
    if ((expr) == MPTL_OK) break;                 \
    fprintf(stderr, "bench: %s\n", mptl_error()); \
    exit(1);                                      \
  } while (0)

/* An array of count numbers: 1.0f; as two bf16 numbers: 0 and 1. Aligned to 64 bytes. */
static inline void *bench_ones(size_t count) {
  float *x = aligned_alloc(64, (count * 4 + 64) / 64 * 64);
  if (x == NULL) abort();
  for (size_t i = 0; i < count; i++) x[i] = 1;
  return x;
}

/* Operands and results in one, since nobody looks at the numbers; the bias is its gradient, too. */
typedef struct bench_buffers {
  float *x, *w, *y, *bias;
  void *packed[2], *scratch; /* oneDNN's */
} bench_buffers;

static inline bench_buffers bench_buffers_create(const mptl_conv_shape *s, mptl_dnn *op) {
  const mptl_conv_sizes sizes = mptl_conv_sizes_of(s);
  bench_buffers b = {
      bench_ones(sizes.n[MPTL_X]),
      bench_ones(sizes.n[MPTL_W]),
      bench_ones(sizes.n[MPTL_Y]),
      bench_ones((size_t)s->oc),
      {bench_ones(mptl_dnn_packed_bytes(op, 0) / 4), bench_ones(mptl_dnn_packed_bytes(op, 1) / 4)},
      bench_ones(mptl_dnn_scratch_bytes(op) / 4)};
  mptl_dnn_use_scratch(op, b.scratch);
  return b;
}

static inline void bench_buffers_destroy(bench_buffers *b) {
  free(b->x), free(b->w), free(b->y), free(b->bias);
  free(b->packed[0]), free(b->packed[1]), free(b->scratch);
}

/* Runs a pass once, with or without packing its weights. */
static inline void bench_dnn(mptl_dnn *op, mptl_pass pass, bench_buffers *b,
                             const mptl_conv_shape *s, bool pack) {
  float *bias = s->bias ? b->bias : NULL;
  if (pack && pass != MPTL_BACKWARD_WEIGHTS) MUST(mptl_dnn_pack(op, pass, b->packed[pass], b->w));
  if (pass == MPTL_FORWARD) MUST(mptl_dnn_forward(op, b->y, b->x, b->packed[0], bias));
  if (pass == MPTL_BACKWARD_DATA) MUST(mptl_dnn_backward_data(op, b->x, b->y, b->packed[1]));
  if (pass == MPTL_BACKWARD_WEIGHTS) MUST(mptl_dnn_backward_weights(op, b->w, bias, b->x, b->y));
}

#endif
