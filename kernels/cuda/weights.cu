/* Weights between PyTorch's order and that of NHWC convolutions. */
#include "kernels/cuda/elements.h"

static __global__ void __launch_bounds__(MPTL_THREADS)
    pack_kernel(MPTL_PARAM mptl_sink_arg sink, const float *src, MPTL_PARAM mptl_cuda_weights w) {
  mptl_counts counts = mptl_no_counts();
  size_t n = w.k * w.c * w.s;
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_step()) { /* of the destination: [k][s][c] */
    size_t c = i % w.c, s = i / w.c % w.s, k = i / w.c / w.s, from = (k * w.c + c) * w.s + s;
    mptl_put(sink, i, from, src[from], &counts);
  }
  mptl_add_counts(sink.stats, counts, n);
}

int mptl_cuda_round_weights(void *dst, mptl_cuda_cast_type type, const mptl_cuda_rounding *weights, mptl_cuda_weights shape,
                            mptl_cuda_stream stream) {
  size_t n = shape.k * shape.c * shape.s;
  if (n == 0) return 0;
  mptl_sink_arg sink = mptl_array_sink(dst, sizeof(float), weights->rounder, weights->key, weights->index0, weights->stats);
  sink.as = mptl_storage_for(type);
  sink.exponents = weights->exponents;
  MPTL_LAUNCH(pack_kernel, mptl_blocks(n), MPTL_THREADS, 0, stream)(sink, weights->src, shape);
  return mptl_launched();
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    unpack_kernel(float *dst, const float *src, MPTL_PARAM mptl_cuda_weights w) {
  for (size_t i = mptl_first_element(); i < w.k * w.c * w.s; i += mptl_element_step()) { /* of the source: [k][s][c] */
    size_t c = i % w.c, s = i / w.c % w.s, k = i / w.c / w.s;
    dst[(k * w.c + c) * w.s + s] = src[i];
  }
}

int mptl_cuda_unpack_weights(float *dst, const float *src, mptl_cuda_weights shape, mptl_cuda_stream stream) {
  size_t n = shape.k * shape.c * shape.s;
  if (n == 0) return 0;
  MPTL_LAUNCH(unpack_kernel, mptl_blocks(n), MPTL_THREADS, 0, stream)(dst, src, shape);
  return mptl_launched();
}
