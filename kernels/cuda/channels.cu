/* The gradient of a bias: a sum by channel. */
#include "kernels/cuda/channels.h"

static __global__ void __launch_bounds__(MPTL_THREADS)
    bias_sums_kernel(MPTL_PARAM mptl_sums_shape shape, MPTL_PARAM mptl_source_arg dy, double *partial) {
  __shared__ double shared[MPTL_THREADS];
  unsigned channel = mptl_sums_channel(shape), count = 0;
  mptl_sums_rows rows = mptl_rows_of(shape);
  double sum = 0;
  float part = 0;
  for (size_t r = rows.begin; r < rows.end && channel < shape.c; r += rows.step) {
    part += mptl_read_one(dy, r * shape.c + channel);
    if (++count % MPTL_FLUSH != 0) continue;
    sum += (double)part;
    part = 0;
  }
  mptl_store_piece(shape, partial, 1, 0, sum + (double)part, shared);
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    bias_totals_kernel(MPTL_PARAM mptl_sums_shape shape, float *dbias, const double *partial) {
  unsigned channel = blockIdx.x * MPTL_THREADS + threadIdx.x;
  if (channel < shape.c) dbias[channel] = (float)mptl_total(shape, partial, 1, 0, channel);
}

size_t mptl_cuda_bias_gradient_scratch(size_t rows, size_t c) {
  mptl_sums_shape shape = mptl_sums_shape_of(rows, c);
  return mptl_sums_bytes(&shape, 1);
}

int mptl_cuda_bias_gradient(float *dbias, const mptl_cuda_source *dy, size_t rows, size_t c, void *scratch,
                            mptl_cuda_stream stream) {
  if (c == 0) return 0;
  mptl_sums_shape shape = mptl_sums_shape_of(rows, c);
  MPTL_LAUNCH(bias_sums_kernel, mptl_sums_grid(&shape), MPTL_THREADS, 0, stream)(shape, mptl_source_of(dy, 0), (double *)scratch);
  MPTL_LAUNCH(bias_totals_kernel, (unsigned)((c + MPTL_THREADS - 1) / MPTL_THREADS), MPTL_THREADS, 0, stream)
  (shape, dbias, (const double *)scratch);
  return mptl_launched();
}
