/* Pools: a thread computes eight channels of a position. Forward, the position is in the output;
 * backward, in the input, and the thread adds the gradients of the windows that contain it in
 * order. Before the backward computation of maxima, another kernel finds the places of each
 * window's maxima. */
#include "kernels/cuda/elements.h"

/* An mptl_pool in numbers of one register each. */
typedef struct shape {
  uint32_t batch, c, ih, iw, oh, ow, kh, kw, sh, sw, ph, pw;
  bool without_padding;
} shape;

static shape shape_of(const mptl_pool *p) {
  shape s = {(uint32_t)p->batch, (uint32_t)p->c,  (uint32_t)p->ih, (uint32_t)p->iw,
             (uint32_t)p->oh,    (uint32_t)p->ow, (uint32_t)p->kh, (uint32_t)p->kw,
             (uint32_t)p->sh,    (uint32_t)p->sw, (uint32_t)p->ph, (uint32_t)p->pw,
             p->without_padding};
  return s;
}

/* Eight channels, or the remaining ones, of a position in an NHWC array. */
typedef struct position {
  size_t at; /* index of the first element */
  uint32_t n, h, w, c, count;
} position;

MPTL_DEVICE uint32_t vectors_of(const shape &p) { return (uint32_t)mptl_vectors(p.c); }

MPTL_DEVICE position position_of(size_t v, uint32_t height, uint32_t width, const shape &p) {
  position o;
  uint32_t vectors = vectors_of(p);
  size_t pixel = v / vectors, row = pixel / width;
  o.c = (uint32_t)(v - pixel * vectors) * MPTL_WIDE;
  o.at = pixel * p.c + o.c;
  o.count = mptl_count_at(o.c, p.c);
  o.w = (uint32_t)(pixel - row * width);
  o.n = (uint32_t)(row / height);
  o.h = (uint32_t)(row - (size_t)o.n * height);
  return o;
}

MPTL_DEVICE size_t input_at(const shape &p, uint32_t n, uint32_t h, uint32_t w, uint32_t c) {
  return (((size_t)n * p.ih + h) * p.iw + w) * p.c + c;
}

/* The windows [first, end) that contain a position, in one dimension. Positions count the
 * padding. */
typedef struct windows {
  uint32_t first, end;
} windows;

MPTL_DEVICE windows windows_of(uint32_t at, uint32_t kernel, uint32_t stride, uint32_t count) {
  windows w = {at < kernel ? 0 : (at - kernel) / stride + 1, at / stride + 1};
  if (w.end > count) w.end = count;
  return w;
}

/* Calls use(eight channels, number in the window) for each element of an output's window that is
 * inside the image, in order. */
template <typename Use>
MPTL_DEVICE void for_window(const shape &p, const mptl_source_arg &x, const position &o, Use use) {
  for (uint32_t i = 0; i < p.kh; i++) {
    uint32_t h = o.h * p.sh + i - p.ph; /* unsigned: negative rows become too large */
    for (uint32_t j = 0; j < p.kw && h < p.ih; j++) {
      uint32_t w = o.w * p.sw + j - p.pw;
      float values[MPTL_WIDE];
      if (w >= p.iw) continue;
      mptl_read_wide(values, x, input_at(p, o.n, h, w, o.c), o.count);
      use(values, i * p.kw + j);
    }
  }
}

/* ---- Averages ---- */

MPTL_DEVICE float weight(const shape &p, uint32_t oh, uint32_t ow) {
  if (!p.without_padding) return 1.0f / (float)(p.kh * p.kw);
  return 1.0f / (float)(mptl_pool_inside(oh * p.sh, p.kh, p.ph, p.ih) *
                        mptl_pool_inside(ow * p.sw, p.kw, p.pw, p.iw));
}

MPTL_DEVICE void average(float *y, const shape &p, const mptl_source_arg &x, const position &o) {
  float of_one = weight(p, o.h, o.w);
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) y[k] = 0.0f;
  for_window(p, x, o, [&](const float *values, uint32_t) {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) y[k] += values[k];
  });
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) y[k] *= of_one;
}

/* ---- Maxima ---- */

/* Finds the largest elements of a window and their numbers in it: of equal elements the first; NaN
 * counts as larger than all numbers, and of several NaNs the last counts. */
MPTL_DEVICE void find_maxima(float *best, uint32_t *best_at, const shape &p,
                             const mptl_source_arg &x, const position &o) {
  bool any = false;
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) best[k] = 0.0f, best_at[k] = 0;
  for_window(p, x, o, [&](const float *values, uint32_t number) {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++)
      if (!any || values[k] > best[k] || values[k] != values[k])
        best[k] = values[k], best_at[k] = number;
    any = true;
  });
}

/* Places of maxima in scratch memory: a whole vector for each vector of the output. A place is a
 * number in a window, in bytes_of_place bytes. */
static size_t bytes_of_place(const mptl_pool *p) { return p->kh * p->kw <= 256 ? 1 : 4; }

template <int BYTES>
MPTL_DEVICE void write_places(char *places, size_t v, const uint32_t *at) {
  uint32_t words[2 * BYTES] = {0};
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) words[k * BYTES / 4] |= at[k] << k * BYTES % 4 * 8;
  mptl_write_words<2 * BYTES>(places + v * MPTL_WIDE * BYTES, words, MPTL_WIDE * BYTES);
}

template <int BYTES>
MPTL_DEVICE void read_places(uint32_t *at, const char *places, size_t v) {
  uint32_t words[2 * BYTES];
  mptl_read_words<2 * BYTES>(words, places + v * MPTL_WIDE * BYTES, MPTL_WIDE * BYTES);
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++)
    at[k] = words[k * BYTES / 4] >> k * BYTES % 4 * 8 & (BYTES == 1 ? 0xffu : 0xffffffffu);
}

template <int BYTES>
static __global__ void __launch_bounds__(MPTL_THREADS, 2)
    places_kernel(char *places, MPTL_PARAM mptl_source_arg x, MPTL_PARAM shape p) {
  size_t vectors = (size_t)p.batch * p.oh * p.ow * vectors_of(p);
  for (size_t v = mptl_first_element(); v < vectors; v += mptl_element_stride()) {
    position o = position_of(v, p.oh, p.ow, p);
    float unused[MPTL_WIDE];
    uint32_t at[MPTL_WIDE];
    find_maxima(unused, at, p, x, o);
    write_places<BYTES>(places, v, at);
  }
}

/* ---- Kernels of both kinds ---- */

template <bool MAXIMUM>
static __global__ void __launch_bounds__(MPTL_THREADS, 2)
    forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, MPTL_PARAM shape p) {
  mptl_counts counts = mptl_no_counts();
  size_t positions = (size_t)p.batch * p.oh * p.ow;
  for (size_t v = mptl_first_element(); v < positions * vectors_of(p); v += mptl_element_stride()) {
    position o = position_of(v, p.oh, p.ow, p);
    float values[MPTL_WIDE];
    uint32_t unused[MPTL_WIDE];
    if (MAXIMUM)
      find_maxima(values, unused, p, x, o);
    else
      average(values, p, x, o);
    mptl_put_wide(y, o.at, o.at, o.count, values, &counts);
  }
  mptl_add_counts(y.stats, counts, positions * p.c);
}

/* BYTES: of a place of a maximum; 0: the pool computes averages, and places is NULL. */
template <int BYTES>
static __global__ void __launch_bounds__(MPTL_THREADS, 2)
    backward_kernel(MPTL_PARAM mptl_sink_arg dx, const char *places, MPTL_PARAM mptl_source_arg dy,
                    MPTL_PARAM shape p) {
  mptl_counts counts = mptl_no_counts();
  size_t positions = (size_t)p.batch * p.ih * p.iw;
  for (size_t v = mptl_first_element(); v < positions * vectors_of(p); v += mptl_element_stride()) {
    position i = position_of(v, p.ih, p.iw, p);
    windows rows = windows_of(i.h + p.ph, p.kh, p.sh, p.oh),
            columns = windows_of(i.w + p.pw, p.kw, p.sw, p.ow);
    float sum[MPTL_WIDE] = {0.0f};
    for (uint32_t oh = rows.first; oh < rows.end; oh++)
      for (uint32_t ow = columns.first; ow < columns.end; ow++) {
        size_t window = ((size_t)i.n * p.oh + oh) * p.ow + ow;
        float gradient[MPTL_WIDE];
        mptl_read_wide(gradient, dy, window * p.c + i.c, i.count);
        if constexpr (BYTES > 0) {
          uint32_t at[MPTL_WIDE], here = (i.h + p.ph - oh * p.sh) * p.kw + (i.w + p.pw - ow * p.sw);
          read_places<BYTES>(at, places, window * vectors_of(p) + i.c / MPTL_WIDE);
#pragma unroll
          for (int k = 0; k < MPTL_WIDE; k++)
            if (at[k] == here) sum[k] += gradient[k];
        } else {
          float of_one = weight(p, oh, ow);
#pragma unroll
          for (int k = 0; k < MPTL_WIDE; k++) sum[k] += gradient[k] * of_one;
        }
      }
    mptl_put_wide(dx, i.at, i.at, i.count, sum, &counts);
  }
  mptl_add_counts(dx.stats, counts, positions * p.c);
}

static unsigned blocks_of(size_t positions, const mptl_pool *p) {
  return mptl_blocks(positions * mptl_vectors(p->c));
}

template <bool MAXIMUM>
static int forward(const mptl_sink *y, const mptl_source *x, const mptl_pool *pool,
                   mptl_cuda_stream stream) {
  size_t positions = pool->batch * pool->oh * pool->ow;
  if (positions * pool->c == 0) return 0;
  MPTL_LAUNCH(forward_kernel<MAXIMUM>, blocks_of(positions, pool), MPTL_THREADS, 0, stream)
  (mptl_sink_of(y, pool->c), mptl_source_of(x, pool->c), shape_of(pool));
  return mptl_launched();
}

template <int BYTES>
static int backward(const mptl_sink *dx, const void *places, const mptl_source *dy,
                    const mptl_pool *pool, mptl_cuda_stream stream) {
  size_t positions = pool->batch * pool->ih * pool->iw;
  if (positions * pool->c == 0) return 0;
  MPTL_LAUNCH(backward_kernel<BYTES>, blocks_of(positions, pool), MPTL_THREADS, 0, stream)
  (mptl_sink_of(dx, pool->c), (const char *)places, mptl_source_of(dy, pool->c), shape_of(pool));
  return mptl_launched();
}

template <int BYTES>
static int maximum_backward(const mptl_sink *dx, const mptl_source *x, const mptl_source *dy,
                            const mptl_pool *pool, void *places, mptl_cuda_stream stream) {
  size_t positions = pool->batch * pool->oh * pool->ow;
  if (positions * pool->c == 0) return 0;
  MPTL_LAUNCH(places_kernel<BYTES>, blocks_of(positions, pool), MPTL_THREADS, 0, stream)
  ((char *)places, mptl_source_of(x, pool->c), shape_of(pool));
  return backward<BYTES>(dx, places, dy, pool, stream);
}

int mptl_cuda_avgpool_forward(const mptl_sink *y, const mptl_source *x, const mptl_pool *pool,
                              mptl_cuda_stream stream) {
  return forward<false>(y, x, pool, stream);
}

int mptl_cuda_avgpool_backward(const mptl_sink *dx, const mptl_source *dy, const mptl_pool *pool,
                               mptl_cuda_stream stream) {
  return backward<0>(dx, NULL, dy, pool, stream);
}

int mptl_cuda_maxpool_forward(const mptl_sink *y, const mptl_source *x, const mptl_pool *pool,
                              mptl_cuda_stream stream) {
  return forward<true>(y, x, pool, stream);
}

size_t mptl_cuda_maxpool_scratch(const mptl_pool *pool) {
  return pool->batch * pool->oh * pool->ow * mptl_vectors(pool->c) * MPTL_WIDE *
         bytes_of_place(pool);
}

int mptl_cuda_maxpool_backward(const mptl_sink *dx, const mptl_source *x, const mptl_source *dy,
                               const mptl_pool *pool, void *scratch, mptl_cuda_stream stream) {
  if (bytes_of_place(pool) == 1) return maximum_backward<1>(dx, x, dy, pool, scratch, stream);
  return maximum_backward<4>(dx, x, dy, pool, scratch, stream);
}
