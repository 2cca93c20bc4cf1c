/* The update of all parameters, in one launch: a block has one chunk of CHUNK elements, of whichever parameter they are. So chunks are many
 * and small, and the device's scheduler keeps all multiprocessors busy until the last ones; and a thread's accesses are few enough
 * for all its reads to be under way before the first result is needed. */
#include "kernels/cuda/values.h"

enum {
  ACCESS = 4,  /* floats of an access */
  ACCESSES = 2 /* of a thread, in each array */
};
enum { CHUNK = ACCESSES * ACCESS * MPTL_THREADS };

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

/* Elements of a parameter that a chunk has: [begin, wide) by accesses of 16 bytes, [wide, end) one a thread and turn. */
typedef struct piece {
  size_t begin, wide, end;
} piece;

/* addresses: all bits that are set in those of the arrays. */
MPTL_DEVICE piece piece_of(const mptl_cuda_param &p, size_t chunk, uintptr_t addresses) {
  piece here;
  here.begin = (chunk - p.first) * CHUNK;
  here.end = p.n - here.begin < CHUNK ? p.n : here.begin + CHUNK;
  here.wide = addresses % 16 == 0 ? here.end - here.end % ACCESS : here.begin;
  return here;
}

/* Where access number k of a thread is. */
MPTL_DEVICE size_t access_at(const piece &here, int k) { return here.begin + ((size_t)k * MPTL_THREADS + threadIdx.x) * ACCESS; }

MPTL_DEVICE void read_access(float *x, const float *from) {
  uint4 v = mptl_load<uint4>(from);
  x[0] = __uint_as_float(v.x), x[1] = __uint_as_float(v.y), x[2] = __uint_as_float(v.z), x[3] = __uint_as_float(v.w);
}

MPTL_DEVICE void write_access(float *to, const float *x) {
  mptl_store_16(to, make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])));
}

/* The order of kernels/cpu/isa/layers.c. */
MPTL_DEVICE void update(float *x, float *buf, float g, float momentum, const mptl_sgd &sgd) {
  float d = g * sgd.inv_scale + sgd.weight_decay * *x;
  *buf = momentum * *buf + d;
  *x -= sgd.lr * *buf;
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    sgd_kernel(const mptl_cuda_param *params, size_t count, MPTL_PARAM mptl_sgd sgd, const uint32_t *skip) {
  if (skip != NULL && *skip != 0) return;
  float momentum = sgd.first ? 0.0f : sgd.momentum;
  const mptl_cuda_param p = params[find(params, count, blockIdx.x)];
  piece here = piece_of(p, blockIdx.x, (uintptr_t)p.p | (uintptr_t)p.buf | (uintptr_t)p.g);
  float x[ACCESSES][ACCESS], buf[ACCESSES][ACCESS], g[ACCESSES][ACCESS];
#pragma unroll
  for (int k = 0; k < ACCESSES; k++) {
    size_t i = access_at(here, k);
    if (i >= here.wide) continue;
    read_access(g[k], p.g + i);
    read_access(x[k], p.p + i);
    read_access(buf[k], p.buf + i);
  }
#pragma unroll
  for (int k = 0; k < ACCESSES; k++) {
    size_t i = access_at(here, k);
    if (i >= here.wide) continue;
#pragma unroll
    for (int j = 0; j < ACCESS; j++) update(&x[k][j], &buf[k][j], g[k][j], momentum, sgd);
    write_access(p.buf + i, buf[k]);
    write_access(p.p + i, x[k]);
  }
  for (size_t i = here.wide + threadIdx.x; i < here.end; i += MPTL_THREADS) update(&p.p[i], &p.buf[i], p.g[i], momentum, sgd);
}

MPTL_DEVICE uint32_t is_nonfinite(float x) { return (__float_as_uint(x) & ~MPTL_F32_SIGN) >= MPTL_F32_INF; }

static __global__ void __launch_bounds__(MPTL_THREADS)
    nonfinite_kernel(uint32_t *flag, const mptl_cuda_param *params, size_t count) {
  const mptl_cuda_param p = params[find(params, count, blockIdx.x)];
  piece here = piece_of(p, blockIdx.x, (uintptr_t)p.g);
  float g[ACCESSES][ACCESS] = {{0}};
#pragma unroll
  for (int k = 0; k < ACCESSES; k++)
    if (access_at(here, k) < here.wide) read_access(g[k], p.g + access_at(here, k));
  uint32_t bad = 0;
#pragma unroll
  for (int k = 0; k < ACCESSES; k++)
#pragma unroll
    for (int j = 0; j < ACCESS; j++) bad |= is_nonfinite(g[k][j]);
  for (size_t i = here.wide + threadIdx.x; i < here.end; i += MPTL_THREADS) bad |= is_nonfinite(p.g[i]);
  if (__any_sync(0xffffffffu, bad) && mptl_lane() == 0) atomicOr(flag, 1u);
}

enum { MOST_BLOCKS = 0x7fffffff };

int mptl_cuda_find_nonfinite_gradients(uint32_t *flag, const mptl_cuda_param *params, size_t count, size_t chunks,
                                       mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  if (chunks > MOST_BLOCKS) return MPTL_INVALID_VALUE;
  MPTL_LAUNCH(nonfinite_kernel, (unsigned)chunks, MPTL_THREADS, 0, stream)(flag, params, count);
  return mptl_launched();
}

int mptl_cuda_sgd(const mptl_cuda_param *params, size_t count, size_t chunks, mptl_sgd sgd, const uint32_t *skip,
                  mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  if (chunks > MOST_BLOCKS) return MPTL_INVALID_VALUE;
  MPTL_LAUNCH(sgd_kernel, (unsigned)chunks, MPTL_THREADS, 0, stream)(params, count, sgd, skip);
  return mptl_launched();
}
