/* Checks of matrix products: fills operands with whole numbers and compares results with sums of
 * products by definition. A block computes one sum. */
#include "kernels/cuda/elements.h"

static __global__ void __launch_bounds__(MPTL_THREADS)
    fill_kernel(MPTL_PARAM mptl_sink_arg sink, MPTL_PARAM mptl_whole numbers, size_t n) {
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_stride())
    mptl_write_one(sink, i, (float)mptl_whole_number(&numbers, i));
}

int mptl_cuda_fill_whole(const mptl_sink *dst, const mptl_whole *numbers, size_t n,
                         mptl_cuda_stream stream) {
  if (n == 0) return 0;
  MPTL_LAUNCH(fill_kernel, mptl_blocks(n), MPTL_THREADS, 0, stream)
  (mptl_sink_of(dst, 0), *numbers, n);
  return mptl_launched();
}

/* ---- One result ---- */

/* The four dimensions of a result, and the number of products of a sum. */
typedef struct extent {
  uint32_t dims[4], terms;
} extent;

static extent extent_of(const mptl_cuda_sums *s) {
  const uint32_t c = s->ic / s->groups, k = s->oc / s->groups;
  const extent of_passes[] = {{{s->n, s->oh, s->ow, s->oc}, s->kh * s->kw * c},
                              {{s->n, s->ih, s->iw, s->ic}, s->kh * s->kw * k},
                              {{s->oc, s->kh, s->kw, c}, s->n * s->oh * s->ow}};
  return of_passes[s->pass];
}

static size_t elements_of(const extent *e) {
  return (size_t)e->dims[0] * e->dims[1] * e->dims[2] * e->dims[3];
}

/* The indices of the two elements of a product. */
typedef struct term {
  size_t first, second;
  bool inside; /* both exist; otherwise the product is with padding, which is 0 */
} term;

MPTL_DEVICE size_t at(uint32_t a, uint32_t b, uint32_t nb, uint32_t c, uint32_t nc, uint32_t d,
                      uint32_t nd) {
  return (((size_t)a * nb + b) * nc + c) * nd + d;
}

/* Product t of the sum at i, the result's index in each dimension. */
MPTL_DEVICE term term_of(const mptl_cuda_sums &s, const uint32_t *i, uint32_t t) {
  const uint32_t c = s.ic / s.groups, k = s.oc / s.groups;
  term o;
  if (s.pass == 0) {
    uint32_t place = t / c, channel = t % c, h = i[1] * s.sh + place / s.kw * s.dh - s.ph,
             w = i[2] * s.sw + place % s.kw * s.dw - s.pw;
    o.inside = h < s.ih && w < s.iw; /* unsigned: a negative index is larger than any size */
    o.first = at(i[0], h, s.ih, w, s.iw, i[3] / k * c + channel, s.ic);
    o.second = at(i[3], place / s.kw, s.kh, place % s.kw, s.kw, channel, c);
  } else if (s.pass == 1) {
    uint32_t place = t / k, out = i[3] / c * k + t % k, h = i[1] + s.ph, w = i[2] + s.pw,
             y = place / s.kw * s.dh, x = place % s.kw * s.dw;
    o.inside = h >= y && w >= x && (h - y) % s.sh == 0 && (w - x) % s.sw == 0 &&
               (h - y) / s.sh < s.oh && (w - x) / s.sw < s.ow;
    o.first = at(i[0], (h - y) / s.sh, s.oh, (w - x) / s.sw, s.ow, out, s.oc);
    o.second = at(out, place / s.kw, s.kh, place % s.kw, s.kw, i[3] % c, c);
  } else {
    uint32_t row = t / s.ow, n = row / s.oh, y = row % s.oh, x = t % s.ow,
             h = y * s.sh + i[1] * s.dh - s.ph, w = x * s.sw + i[2] * s.dw - s.pw;
    o.inside = h < s.ih && w < s.iw;
    o.first = at(n, h, s.ih, w, s.iw, i[0] / k * c + i[3], s.ic);
    o.second = at(n, y, s.oh, x, s.ow, i[0], s.oc);
  }
  return o;
}

/* Adds the numbers of a block's threads. All threads call, and all get the sum. */
MPTL_DEVICE int64_t sum_of_block(int64_t sum) {
  MPTL_SHARED(int64_t, sums, [MPTL_WARPS]);
  for (unsigned bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
  if (mptl_lane() == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  int64_t all = 0;
  for (unsigned w = 0; w < MPTL_WARPS; w++) all += sums[w];
  __syncthreads(); /* before the next sum overwrites sums */
  return all;
}

/* A matrix product that is checked. */
typedef struct product {
  mptl_cuda_sums sums;
  extent of;
  mptl_source_arg first, second;
  const float *result;
  size_t n, samples;
  int64_t most; /* samples whose products' magnitudes add up to this or more are skipped */
} product;

/* Returns the index of a sample's element, and in i the index by dimension. If not all elements are
 * samples, the samples are the first element, the last one, and random ones. Every second random
 * element is, in each dimension, at an edge with a probability of one half. */
MPTL_DEVICE size_t element_of(const product &p, size_t sample, uint32_t *i) {
  const uint32_t *dims = p.of.dims;
  if (p.samples >= p.n || sample < 2) {
    size_t element = p.samples < p.n && sample == 1 ? p.n - 1 : sample, left = element;
    for (int d = 3; d >= 0; d--) i[d] = (uint32_t)(left % dims[d]), left /= dims[d];
    return element;
  }
  uint32_t words[4];
  mptl_philox(words, mptl_make_key(1, MPTL_STREAM_INIT, 1, 0), sample, 0);
  for (int d = 0; d < 4; d++) {
    uint32_t choice = sample % 2 == 0 ? 2 : words[d] & 3;
    i[d] = choice == 0   ? 0
           : choice == 1 ? dims[d] - 1
                         : (uint32_t)((uint64_t)words[d] * dims[d] >> 32);
  }
  return at(i[0], i[1], dims[1], i[2], dims[2], i[3], dims[3]);
}

/* Computes the sum at i, and whether its products are small enough to compare it. All threads of
 * the block call. */
MPTL_DEVICE int64_t expected_of(const product &p, const uint32_t *i, bool *small) {
  int64_t sum = 0, magnitudes = 0;
  for (uint32_t t = threadIdx.x; t < p.of.terms; t += MPTL_THREADS) {
    term o = term_of(p.sums, i, t);
    if (!o.inside) continue;
    int64_t number = (int64_t)(mptl_read_one(p.first, o.first) * mptl_read_one(p.second, o.second));
    sum += number, magnitudes += number < 0 ? -number : number;
  }
  *small = sum_of_block(magnitudes) < p.most;
  return sum_of_block(sum);
}

/* ---- Checks ---- */

static __global__ void __launch_bounds__(MPTL_THREADS)
    compare_kernel(mptl_cuda_verdict *verdict, MPTL_PARAM product p) {
  for (size_t sample = blockIdx.x; sample < p.samples; sample += gridDim.x) {
    uint32_t i[4];
    size_t element = element_of(p, sample, i);
    bool small;
    int64_t expected = expected_of(p, i, &small), magnitude = expected < 0 ? -expected : expected;
    if (threadIdx.x != 0 || !small) continue;
    atomicMax((mptl_u64 *)&verdict->largest, (mptl_u64)magnitude);
    if (p.result[element] == (float)expected) continue; /* NaN is never equal */
    atomicAdd((mptl_u64 *)&verdict->wrong, (mptl_u64)1);
    atomicMax((mptl_u64 *)&verdict->behind, (mptl_u64)(p.samples - sample));
  }
}

/* Describes the first wrong sample. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    describe_kernel(mptl_cuda_verdict *verdict, MPTL_PARAM product p) {
  if (verdict->wrong == 0) return;
  uint32_t i[4];
  size_t element = element_of(p, p.samples - (size_t)verdict->behind, i);
  bool small;
  int64_t expected = expected_of(p, i, &small);
  if (threadIdx.x != 0) return;
  verdict->at = element;
  verdict->got = p.result[element];
  verdict->expected = (float)expected;
}

size_t mptl_cuda_check_samples(const mptl_cuda_sums *sums) {
  const size_t least = 1 << 10, most = 1 << 16, products = 1 << 29;
  extent e = extent_of(sums);
  size_t n = elements_of(&e), samples = products / (e.terms > 0 ? e.terms : 1);
  samples = samples < least ? least : samples > most ? most : samples;
  return samples < n ? samples : n;
}

int mptl_cuda_check_sums(mptl_cuda_verdict *verdict, const float *result, const mptl_source *first,
                         const mptl_source *second, const mptl_cuda_sums *sums, size_t samples,
                         int64_t most, mptl_cuda_stream stream) {
  if (sums->pass < 0 || sums->pass > 2) return MPTL_INVALID_VALUE;
  product p;
  memset(&p, 0, sizeof p);
  p.sums = *sums;
  p.of = extent_of(sums);
  p.first = mptl_source_of(first, 0), p.second = mptl_source_of(second, 0);
  p.result = result;
  p.n = elements_of(&p.of);
  p.samples = samples < p.n ? samples : p.n;
  p.most = most;
  if (p.samples == 0) return 0;
  MPTL_LAUNCH(compare_kernel, mptl_blocks_of(p.samples), MPTL_THREADS, 0, stream)(verdict, p);
  MPTL_LAUNCH(describe_kernel, 1, MPTL_THREADS, 0, stream)(verdict, p);
  return mptl_launched();
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    same_kernel(mptl_cuda_verdict *verdict, const float *a, const float *b, size_t n) {
  uint32_t others = 0, left = 0;
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_stride()) {
    others += __float_as_uint(a[i]) != __float_as_uint(b[i]);
    left += a[i] != a[i];
  }
  others = __reduce_add_sync(0xffffffffu, others);
  left = __reduce_add_sync(0xffffffffu, left);
  if (mptl_lane() != 0) return;
  mptl_add_u64(&verdict->others, others);
  mptl_add_u64(&verdict->left, left);
}

int mptl_cuda_check_same(mptl_cuda_verdict *verdict, const float *a, const float *b, size_t n,
                         mptl_cuda_stream stream) {
  if (n == 0) return 0;
  MPTL_LAUNCH(same_kernel, mptl_blocks(n), MPTL_THREADS, 0, stream)(verdict, a, b, n);
  return mptl_launched();
}
