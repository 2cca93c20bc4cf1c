/* The update of all parameters, in one launch: a block takes chunks of CHUNK elements, of whichever parameter they are. */
#include "kernels/cuda/values.h"

enum { CHUNK = 8 * MPTL_THREADS * MPTL_WIDE };

size_t mptl_cuda_plan_params(mptl_cuda_param *params, size_t count) {
  size_t chunks = 0;
  for (size_t i = 0; i < count; i++) {
    params[i].first = chunks;
    chunks += (params[i].n + CHUNK - 1) / CHUNK;
  }
  return chunks;
}

/* The parameter that a chunk is of: the last one that begins at it or before and is not empty. */
MPTL_DEVICE size_t find(const mptl_cuda_param *params, size_t count, size_t chunk) {
  size_t low = 0, high = count; /* params[low].first <= chunk < params[high].first */
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (params[middle].first <= chunk)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* Elements [begin, end) of a parameter that a chunk has. */
typedef struct piece {
  size_t begin, end;
} piece;

MPTL_DEVICE piece piece_of(const mptl_cuda_param &p, size_t chunk) {
  piece here;
  here.begin = (chunk - p.first) * CHUNK;
  here.end = p.n - here.begin < CHUNK ? p.n : here.begin + CHUNK;
  return here;
}

MPTL_DEVICE unsigned align_of(const void *p) { return (uintptr_t)p % 16 == 0 ? 16u : (uintptr_t)p % 8 == 0 ? 8u : 4u; }

MPTL_DEVICE void write_floats(float *to, const float *x, unsigned n, unsigned align) {
  uint32_t words[MPTL_WIDE];
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) words[k] = __float_as_uint(x[k]);
  if (n == MPTL_WIDE) {
    mptl_write_words<MPTL_WIDE>((char *)to, words, align);
  } else {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n) to[k] = x[k];
  }
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    sgd_kernel(const mptl_cuda_param *params, size_t count, size_t chunks, mptl_sgd sgd, const uint32_t *skip) {
  if (skip != NULL && *skip != 0) return;
  float momentum = sgd.first ? 0.0f : sgd.momentum;
  for (size_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const mptl_cuda_param p = params[find(params, count, chunk)];
    piece here = piece_of(p, chunk);
    unsigned of_p = align_of(p.p), of_buf = align_of(p.buf), of_g = align_of(p.g);
    for (size_t i = here.begin + threadIdx.x * MPTL_WIDE; i < here.end; i += MPTL_THREADS * MPTL_WIDE) {
      unsigned n = mptl_count_at(i, here.end);
      float x[MPTL_WIDE], buf[MPTL_WIDE], g[MPTL_WIDE];
      mptl_read_floats(g, p.g + i, n, of_g);
      mptl_read_floats(x, p.p + i, n, of_p);
      mptl_read_floats(buf, p.buf + i, n, of_buf);
#pragma unroll
      for (int k = 0; k < MPTL_WIDE; k++) { /* the order of kernels/cpu/isa/layers.c */
        float d = g[k] * sgd.inv_scale + sgd.weight_decay * x[k];
        buf[k] = momentum * buf[k] + d;
        x[k] -= sgd.lr * buf[k];
      }
      write_floats(p.buf + i, buf, n, of_buf);
      write_floats(p.p + i, x, n, of_p);
    }
  }
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    nonfinite_kernel(uint32_t *flag, const mptl_cuda_param *params, size_t count, size_t chunks) {
  uint32_t bad = 0;
  for (size_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const mptl_cuda_param p = params[find(params, count, chunk)];
    piece here = piece_of(p, chunk);
    unsigned align = align_of(p.g);
    for (size_t i = here.begin + threadIdx.x * MPTL_WIDE; i < here.end; i += MPTL_THREADS * MPTL_WIDE) {
      float g[MPTL_WIDE];
      mptl_read_floats(g, p.g + i, mptl_count_at(i, here.end), align);
#pragma unroll
      for (int k = 0; k < MPTL_WIDE; k++) bad |= (__float_as_uint(g[k]) & ~MPTL_F32_SIGN) >= MPTL_F32_INF;
    }
  }
  if (__any_sync(0xffffffffu, bad) && mptl_lane() == 0) atomicOr(flag, 1u);
}

int mptl_cuda_find_nonfinite_gradients(uint32_t *flag, const mptl_cuda_param *params, size_t count, size_t chunks,
                                       mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  MPTL_LAUNCH(nonfinite_kernel, mptl_blocks_of(chunks), MPTL_THREADS, 0, stream)(flag, params, count, chunks);
  return mptl_launched();
}

int mptl_cuda_sgd(const mptl_cuda_param *params, size_t count, size_t chunks, mptl_sgd sgd, const uint32_t *skip,
                  mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  MPTL_LAUNCH(sgd_kernel, mptl_blocks_of(chunks), MPTL_THREADS, 0, stream)(params, count, chunks, sgd, skip);
  return mptl_launched();
}
