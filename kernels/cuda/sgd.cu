/* The update of all parameters: a block takes a chunk of one of them. */
#include "kernels/cuda/values.h"

enum { CHUNK = 8192 }; /* elements */

size_t mptl_cuda_plan_params(mptl_cuda_param *params, size_t count) {
  size_t chunks = 0;
  for (size_t i = 0; i < count; i++) {
    params[i].first = chunks;
    chunks += (params[i].n + CHUNK - 1) / CHUNK;
  }
  return chunks;
}

/* The parameter that has a chunk: the last one whose first chunk is not behind it, and which has any. */
MPTL_DEVICE size_t find_param(const mptl_cuda_param *params, size_t count, size_t chunk) {
  size_t low = 0, high = count; /* params[low].first <= chunk; from high on they are behind */
  while (high - low > 1) {
    size_t middle = (low + high) / 2;
    if (params[middle].first <= chunk)
      low = middle;
    else
      high = middle;
  }
  return low;
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    sgd_kernel(const mptl_cuda_param *params, size_t count, MPTL_PARAM mptl_sgd s, const uint32_t *skip) {
  if (skip != NULL && *skip != 0) return;
  const mptl_cuda_param *p = &params[find_param(params, count, blockIdx.x)];
  float mu = s.first ? 0.0f : s.momentum;
  size_t begin = (blockIdx.x - p->first) * CHUNK, end = p->n - begin < CHUNK ? p->n : begin + CHUNK;
  for (size_t i = begin + threadIdx.x; i < end; i += MPTL_THREADS) {
    float d = p->g[i] * s.inv_scale + s.weight_decay * p->p[i];
    float b = mu * p->buf[i] + d;
    p->buf[i] = b;
    p->p[i] -= s.lr * b;
  }
}

int mptl_cuda_sgd(const mptl_cuda_param *params, size_t count, size_t chunks, mptl_sgd sgd, const uint32_t *skip,
                  mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  MPTL_LAUNCH(sgd_kernel, (unsigned)chunks, MPTL_THREADS, 0, stream)(params, count, sgd, skip);
  return mptl_launched();
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    nonfinite_kernel(uint32_t *flag, const mptl_cuda_param *params, size_t count) {
  const mptl_cuda_param *p = &params[find_param(params, count, blockIdx.x)];
  size_t begin = (blockIdx.x - p->first) * CHUNK, end = p->n - begin < CHUNK ? p->n : begin + CHUNK;
  bool bad = false;
  for (size_t i = begin + threadIdx.x; i < end; i += MPTL_THREADS)
    bad = bad || (__float_as_uint(p->g[i]) & ~MPTL_F32_SIGN) >= MPTL_F32_INF;
  if (bad) atomicOr(flag, 1u);
}

int mptl_cuda_find_nonfinite_gradients(uint32_t *flag, const mptl_cuda_param *params, size_t count, size_t chunks,
                                       mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  MPTL_LAUNCH(nonfinite_kernel, (unsigned)chunks, MPTL_THREADS, 0, stream)(flag, params, count);
  return mptl_launched();
}
