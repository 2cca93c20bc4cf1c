/* The update of all parameters, in one launch. A block updates one chunk of CHUNK elements of a
 * parameter. The chunks are many and small, so the device's scheduler keeps all multiprocessors
 * busy until the end; and a thread has so few accesses that it starts all its reads before it needs
 * the first result. */
#include "kernels/cuda/values.h"

enum {
  ACCESS = 4,  /* floats of an access */
  ACCESSES = 2 /* accesses of a thread to each array */
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

/* The parameter of a chunk: the last parameter, not empty, whose first chunk is not after it. */
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

/* The elements of a parameter in a chunk: [begin, wide) in accesses of 16 bytes, [wide, end) one
 * for each thread and turn. */
typedef struct piece {
  size_t begin, wide, end;
} piece;

/* addresses: the bitwise or of the arrays' addresses. */
MPTL_DEVICE piece piece_of(const mptl_cuda_param &p, size_t chunk, uintptr_t addresses) {
  piece here;
  here.begin = (chunk - p.first) * CHUNK;
  here.end = p.n - here.begin < CHUNK ? p.n : here.begin + CHUNK;
  here.wide = addresses % 16 == 0 ? here.end - here.end % ACCESS : here.begin;
  return here;
}

/* The first element of a thread's access number k. */
MPTL_DEVICE size_t access_at(const piece &here, int k) {
  return here.begin + ((size_t)k * MPTL_THREADS + threadIdx.x) * ACCESS;
}

MPTL_DEVICE void read_access(float *x, const float *from) {
  uint4 v = mptl_load<uint4>(from);
  x[0] = __uint_as_float(v.x), x[1] = __uint_as_float(v.y), x[2] = __uint_as_float(v.z),
  x[3] = __uint_as_float(v.w);
}

MPTL_DEVICE void write_access(float *to, const float *x) {
  mptl_store_16(to, make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                               __float_as_uint(x[3])));
}

/* The rows of the optimizers' list. */
template <int ID>
struct optimizer;
#define OPTIMIZER(name, NAME, states)                                                 \
  template <>                                                                         \
  struct optimizer<MPTL_OPTIMIZER_##NAME> {                                           \
    enum { STATES = states };                                                         \
    MPTL_DEVICE void update(float *p, float *state, float g, const mptl_factors &f) { \
      mptl_update_##name(p, state, g, &f);                                            \
    }                                                                                 \
  };
MPTL_OPTIMIZERS(OPTIMIZER)
#undef OPTIMIZER

/* Factors by parameter group, as a kernel's parameter. */
typedef struct all_factors {
  mptl_factors group[MPTL_PARAMETER_GROUPS];
} all_factors;

/* The elements of one access to each array. */
template <int STATES>
struct elements {
  float x[ACCESS], g[ACCESS], state[STATES][ACCESS];
};

template <int ID>
MPTL_DEVICE void update_elements(elements<optimizer<ID>::STATES> *e, const mptl_factors &f) {
#pragma unroll
  for (int j = 0; j < ACCESS; j++) {
    float s[MPTL_MAX_STATES];
#pragma unroll
    for (int k = 0; k < optimizer<ID>::STATES; k++) s[k] = e->state[k][j];
    optimizer<ID>::update(&e->x[j], s, e->g[j], f);
#pragma unroll
    for (int k = 0; k < optimizer<ID>::STATES; k++) e->state[k][j] = s[k];
  }
}

template <int ID>
MPTL_DEVICE void update_one(const mptl_cuda_param &p, size_t i, const mptl_factors &f) {
  float s[MPTL_MAX_STATES];
  for (int k = 0; k < optimizer<ID>::STATES; k++) s[k] = p.state[k][i];
  optimizer<ID>::update(&p.p[i], s, p.g[i], f);
  for (int k = 0; k < optimizer<ID>::STATES; k++) p.state[k][i] = s[k];
}

template <int ID>
static __global__ void __launch_bounds__(MPTL_THREADS)
    update_kernel(const mptl_cuda_param *params, size_t count, MPTL_PARAM all_factors factors,
                  const uint32_t *skip) {
  enum { STATES = optimizer<ID>::STATES };
  if (skip != NULL && *skip != 0) return;
  const mptl_cuda_param p = params[find(params, count, blockIdx.x)];
  const mptl_factors &f = factors.group[p.group];
  uintptr_t addresses = (uintptr_t)p.p | (uintptr_t)p.g;
#pragma unroll
  for (int k = 0; k < STATES; k++) addresses |= (uintptr_t)p.state[k];
  piece here = piece_of(p, blockIdx.x, addresses);
  elements<STATES> e[ACCESSES];
#pragma unroll
  for (int k = 0; k < ACCESSES; k++) {
    size_t i = access_at(here, k);
    if (i >= here.wide) continue;
    read_access(e[k].g, p.g + i);
    read_access(e[k].x, p.p + i);
#pragma unroll
    for (int s = 0; s < STATES; s++) read_access(e[k].state[s], p.state[s] + i);
  }
#pragma unroll
  for (int k = 0; k < ACCESSES; k++) {
    size_t i = access_at(here, k);
    if (i >= here.wide) continue;
    update_elements<ID>(&e[k], f);
#pragma unroll
    for (int s = 0; s < STATES; s++) write_access(p.state[s] + i, e[k].state[s]);
    write_access(p.p + i, e[k].x);
  }
  for (size_t i = here.wide + threadIdx.x; i < here.end; i += MPTL_THREADS) update_one<ID>(p, i, f);
}

MPTL_DEVICE uint32_t is_nonfinite(float x) {
  return (__float_as_uint(x) & ~MPTL_F32_SIGN) >= MPTL_F32_INF;
}

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
  for (size_t i = here.wide + threadIdx.x; i < here.end; i += MPTL_THREADS)
    bad |= is_nonfinite(p.g[i]);
  if (__any_sync(0xffffffffu, bad) && mptl_lane() == 0) atomicOr(flag, 1u);
}

enum { MOST_BLOCKS = 0x7fffffff };

int mptl_cuda_find_nonfinite_gradients(uint32_t *flag, const mptl_cuda_param *params, size_t count,
                                       size_t chunks, mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  if (chunks > MOST_BLOCKS) return MPTL_INVALID_VALUE;
  MPTL_LAUNCH(nonfinite_kernel, (unsigned)chunks, MPTL_THREADS, 0, stream)(flag, params, count);
  return mptl_launched();
}

/* ---- Squares of gradients ---- */

/* partial[b]: the sum of chunk b, in a fixed order. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    squares_kernel(double *partial, const mptl_cuda_param *params, size_t count) {
  MPTL_SHARED(double, sums, [MPTL_THREADS]);
  const mptl_cuda_param p = params[find(params, count, blockIdx.x)];
  piece here = piece_of(p, blockIdx.x, (uintptr_t)p.g);
  double sum = 0;
  for (size_t i = here.begin + threadIdx.x; i < here.end; i += MPTL_THREADS)
    sum += (double)p.g[i] * (double)p.g[i];
  sums[threadIdx.x] = sum;
  for (unsigned half = MPTL_THREADS / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

int mptl_cuda_sum_squares(double *partial, const mptl_cuda_param *params, size_t count,
                          size_t chunks, mptl_cuda_stream stream) {
  if (chunks == 0) return 0;
  if (chunks > MOST_BLOCKS) return MPTL_INVALID_VALUE;
  MPTL_LAUNCH(squares_kernel, (unsigned)chunks, MPTL_THREADS, 0, stream)(partial, params, count);
  return mptl_launched();
}

/* ---- Updates ---- */

int mptl_cuda_update(mptl_optimizer_id id, const mptl_cuda_param *params, size_t count,
                     size_t chunks, const mptl_factors *factors, int groups, const uint32_t *skip,
                     mptl_cuda_stream stream) {
  all_factors all;
  if (chunks == 0) return 0;
  if (chunks > MOST_BLOCKS || groups < 1 || groups > MPTL_PARAMETER_GROUPS)
    return MPTL_INVALID_VALUE;
  memset(&all, 0, sizeof all);
  memcpy(all.group, factors, (size_t)groups * sizeof *factors);
  switch (id) {
#define UPDATE(name, NAME, states)                                                               \
  case MPTL_OPTIMIZER_##NAME:                                                                    \
    MPTL_LAUNCH(update_kernel<MPTL_OPTIMIZER_##NAME>, (unsigned)chunks, MPTL_THREADS, 0, stream) \
    (params, count, all, skip);                                                                  \
    break;
    MPTL_OPTIMIZERS(UPDATE)
#undef UPDATE
    default:
      return MPTL_INVALID_VALUE;
  }
  return mptl_launched();
}
