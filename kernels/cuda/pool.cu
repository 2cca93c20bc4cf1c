/* Pools: a thread takes an element of the output, backward one of the input, which it adds up in the order of the windows. */
#include "kernels/cuda/elements.h"

/* Where an element of an NHWC array is. */
typedef struct place {
  size_t n, h, w, c;
} place;

MPTL_DEVICE place place_of(size_t i, size_t height, size_t width, size_t c) {
  place p = {i / c / width / height, i / c / width % height, i / c % width, i % c};
  return p;
}

MPTL_DEVICE size_t input_at(const mptl_cuda_pool &p, size_t n, size_t h, size_t w, size_t c) {
  return ((n * p.ih + h) * p.iw + w) * p.c + c;
}

MPTL_DEVICE size_t output_at(const mptl_cuda_pool &p, size_t n, size_t h, size_t w, size_t c) {
  return ((n * p.oh + h) * p.ow + w) * p.c + c;
}

/* Windows [first, end) that reach a position, padding included. */
typedef struct windows {
  size_t first, end;
} windows;

MPTL_DEVICE windows windows_of(size_t at, size_t kernel, size_t stride, size_t count) {
  windows w = {at < kernel ? 0 : (at - kernel) / stride + 1, at / stride + 1};
  if (w.end > count) w.end = count;
  return w;
}

/* ---- Averages ---- */

/* Of a window's k positions from at on (padding included), those that are inside of the image. */
MPTL_DEVICE size_t inside(size_t at, size_t k, size_t padding, size_t size) {
  size_t first = at > padding ? at : padding, end = at + k < size + padding ? at + k : size + padding;
  return end - first;
}

MPTL_DEVICE float weight(const mptl_cuda_pool &p, size_t oh, size_t ow) {
  if (!p.without_padding) return 1.0f / (float)(p.kh * p.kw);
  return 1.0f / (float)(inside(oh * p.sh, p.kh, p.ph, p.ih) * inside(ow * p.sw, p.kw, p.pw, p.iw));
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    avgpool_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, MPTL_PARAM mptl_cuda_pool p) {
  mptl_counts counts = mptl_no_counts();
  size_t n = p.batch * p.oh * p.ow * p.c;
  for (size_t at = mptl_first_element(); at < n; at += mptl_element_step()) {
    place o = place_of(at, p.oh, p.ow, p.c);
    float sum = 0;
    for (size_t i = 0; i < p.kh; i++) {
      size_t h = o.h * p.sh + i - p.ph; /* beyond all rows, if it is above the first */
      for (size_t j = 0; j < p.kw && h < p.ih; j++) {
        size_t w = o.w * p.sw + j - p.pw;
        if (w < p.iw) sum += mptl_read_one(x, input_at(p, o.n, h, w, o.c));
      }
    }
    mptl_put(y, at, at, sum * weight(p, o.h, o.w), &counts);
  }
  mptl_add_counts(y.stats, counts, n);
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    avgpool_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg dy, MPTL_PARAM mptl_cuda_pool p) {
  mptl_counts counts = mptl_no_counts();
  size_t n = p.batch * p.ih * p.iw * p.c;
  for (size_t at = mptl_first_element(); at < n; at += mptl_element_step()) {
    place x = place_of(at, p.ih, p.iw, p.c);
    windows rows = windows_of(x.h + p.ph, p.kh, p.sh, p.oh), columns = windows_of(x.w + p.pw, p.kw, p.sw, p.ow);
    float sum = 0;
    for (size_t oh = rows.first; oh < rows.end; oh++)
      for (size_t ow = columns.first; ow < columns.end; ow++)
        sum += mptl_read_one(dy, output_at(p, x.n, oh, ow, x.c)) * weight(p, oh, ow);
    mptl_put(dx, at, at, sum, &counts);
  }
  mptl_add_counts(dx.stats, counts, n);
}

int mptl_cuda_avgpool_forward(const mptl_cuda_sink *y, const mptl_cuda_source *x, const mptl_cuda_pool *pool,
                              mptl_cuda_stream stream) {
  size_t n = pool->batch * pool->oh * pool->ow * pool->c;
  if (n == 0) return 0;
  MPTL_LAUNCH(avgpool_forward_kernel, mptl_element_blocks(n), MPTL_THREADS, 0, stream)
  (mptl_sink_of(y, 0), mptl_source_of(x, 0), *pool);
  return mptl_launched();
}

int mptl_cuda_avgpool_backward(const mptl_cuda_sink *dx, const mptl_cuda_source *dy, const mptl_cuda_pool *pool,
                               mptl_cuda_stream stream) {
  size_t n = pool->batch * pool->ih * pool->iw * pool->c;
  if (n == 0) return 0;
  MPTL_LAUNCH(avgpool_backward_kernel, mptl_element_blocks(n), MPTL_THREADS, 0, stream)
  (mptl_sink_of(dx, 0), mptl_source_of(dy, 0), *pool);
  return mptl_launched();
}

/* ---- Maxima ---- */

/* The largest element of a window and its place in the input, of equals the first; a NaN is larger than all. */
MPTL_DEVICE float find_maximum(const mptl_cuda_pool &p, const mptl_source_arg &x, size_t n, size_t oh, size_t ow, size_t c,
                               size_t *best_at) {
  float best = 0;
  bool any = false;
  for (size_t i = 0; i < p.kh; i++) {
    size_t h = oh * p.sh + i - p.ph;
    for (size_t j = 0; j < p.kw && h < p.ih; j++) {
      size_t w = ow * p.sw + j - p.pw, at = input_at(p, n, h, w, c);
      if (w >= p.iw) continue;
      float value = mptl_read_one(x, at);
      if (any && !(value > best) && value == value) continue;
      best = value, *best_at = at, any = true;
    }
  }
  return best;
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    maxpool_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, MPTL_PARAM mptl_cuda_pool p) {
  mptl_counts counts = mptl_no_counts();
  size_t n = p.batch * p.oh * p.ow * p.c, unused = 0;
  for (size_t at = mptl_first_element(); at < n; at += mptl_element_step()) {
    place o = place_of(at, p.oh, p.ow, p.c);
    mptl_put(y, at, at, find_maximum(p, x, o.n, o.h, o.w, o.c, &unused), &counts);
  }
  mptl_add_counts(y.stats, counts, n);
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    maxpool_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg x, MPTL_PARAM mptl_source_arg dy,
                            MPTL_PARAM mptl_cuda_pool p) {
  mptl_counts counts = mptl_no_counts();
  size_t n = p.batch * p.ih * p.iw * p.c;
  for (size_t at = mptl_first_element(); at < n; at += mptl_element_step()) {
    place i = place_of(at, p.ih, p.iw, p.c);
    windows rows = windows_of(i.h + p.ph, p.kh, p.sh, p.oh), columns = windows_of(i.w + p.pw, p.kw, p.sw, p.ow);
    float sum = 0;
    for (size_t oh = rows.first; oh < rows.end; oh++)
      for (size_t ow = columns.first; ow < columns.end; ow++) {
        size_t best = 0;
        find_maximum(p, x, i.n, oh, ow, i.c, &best);
        if (best == at) sum += mptl_read_one(dy, output_at(p, i.n, oh, ow, i.c));
      }
    mptl_put(dx, at, at, sum, &counts);
  }
  mptl_add_counts(dx.stats, counts, n);
}

int mptl_cuda_maxpool_forward(const mptl_cuda_sink *y, const mptl_cuda_source *x, const mptl_cuda_pool *pool,
                              mptl_cuda_stream stream) {
  size_t n = pool->batch * pool->oh * pool->ow * pool->c;
  if (n == 0) return 0;
  MPTL_LAUNCH(maxpool_forward_kernel, mptl_element_blocks(n), MPTL_THREADS, 0, stream)
  (mptl_sink_of(y, 0), mptl_source_of(x, 0), *pool);
  return mptl_launched();
}

int mptl_cuda_maxpool_backward(const mptl_cuda_sink *dx, const mptl_cuda_source *x, const mptl_cuda_source *dy,
                               const mptl_cuda_pool *pool, mptl_cuda_stream stream) {
  size_t n = pool->batch * pool->ih * pool->iw * pool->c;
  if (n == 0) return 0;
  MPTL_LAUNCH(maxpool_backward_kernel, mptl_element_blocks(n), MPTL_THREADS, 0, stream)
  (mptl_sink_of(dx, 0), mptl_source_of(x, 0), mptl_source_of(dy, 0), *pool);
  return mptl_launched();
}
