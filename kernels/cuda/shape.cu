/* concat and slice: copies rows of channels to other places and formats. A thread copies eight
 * channels of a row. */
#include "kernels/cuda/elements.h"

/* Where a row's channels are in an array: channel j of pixel p is element first + p * pitch + j. */
typedef struct side {
  size_t first, pitch;
  uint32_t groups; /* channel groups of a shuffle of the pitch's channels; 1: no shuffle */
} side;

/* A copy: `count` channels of each pixel, of which [begin, end) are read and the others are 0. */
typedef struct rows {
  size_t pixels;
  uint32_t count, begin, end;
  side from, to;
  bool by_count; /* random bits are for the number of the written element, not for its place */
} rows;

/* A shuffle moves channel (group, i) to (i, group). */
MPTL_DEVICE size_t place_of(const side &s, size_t pixel, uint32_t j) {
  if (s.groups == 1) return s.first + pixel * s.pitch + j;
  size_t channel = s.first + j, size = s.pitch / s.groups;
  return pixel * s.pitch + channel % size * s.groups + channel / size;
}

MPTL_DEVICE void read_row(float *x, const mptl_source_arg &source, const rows &r, size_t pixel,
                          uint32_t j, unsigned n) {
  if (r.from.groups == 1 && n == MPTL_WIDE && j >= r.begin && j + MPTL_WIDE <= r.end) {
    mptl_read_wide(x, source, place_of(r.from, pixel, j), MPTL_WIDE);
    return;
  }
#pragma unroll
  for (unsigned k = 0; k < MPTL_WIDE; k++) {
    bool there = k < n && j + k >= r.begin && j + k < r.end;
    x[k] = there ? mptl_read_one(source, place_of(r.from, pixel, j + k)) : 0.0f;
  }
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    rows_kernel(MPTL_PARAM mptl_sink_arg sink, MPTL_PARAM mptl_source_arg source,
                MPTL_PARAM rows r) {
  mptl_counts counts = mptl_no_counts();
  uint32_t vectors = (uint32_t)mptl_vectors(r.count);
  for (size_t v = mptl_first_element(); v < r.pixels * vectors; v += mptl_element_stride()) {
    size_t pixel = v / vectors;
    uint32_t j = (uint32_t)(v - pixel * vectors) * MPTL_WIDE;
    unsigned n = mptl_count_at(j, r.count);
    float x[MPTL_WIDE];
    read_row(x, source, r, pixel, j, n);
    size_t place = place_of(r.to, pixel, j), index = r.by_count ? pixel * r.count + j : place;
    if (r.to.groups == 1) {
      mptl_put_wide(sink, place, index, n, x, &counts);
    } else {
#pragma unroll
      for (unsigned k = 0; k < MPTL_WIDE; k++) {
        size_t to = place_of(r.to, pixel, j + k);
        if (k < n) mptl_put(sink, to, to, x[k], &counts);
      }
    }
  }
  mptl_add_counts(sink.stats, counts, r.pixels * r.count);
}

/* The alignment of the vectors in a side's rows. `first` may be negative modulo 2^64, so addresses
 * are computed as integers. */
static uint8_t align_of(const void *data, const side *s, size_t size) {
  return mptl_align_of((const void *)((uintptr_t)data + s->first * size), s->pitch * size);
}

static void copy(const mptl_sink *to, const mptl_source *from, const rows *r,
                 mptl_cuda_stream stream) {
  size_t n = r->pixels * mptl_vectors(r->count);
  if (n == 0) return;
  mptl_sink_arg sink = mptl_sink_of(to, 0);
  mptl_source_arg source = mptl_source_of(from, 0);
  sink.align = align_of(to->data, &r->to, to->accumulate ? sizeof(float) : to->size);
  source.align = align_of(from->data, &r->from, from->size);
  MPTL_LAUNCH(rows_kernel, mptl_blocks(n), MPTL_THREADS, 0, stream)(sink, source, *r);
}

/* ---- concat: a launch for each input; inputs are few and have different storage ---- */

/* Where the channels of input k are in the output. */
static side in_output(const mptl_cuda_concat *concat, int k) {
  size_t first = 0, c = 0;
  for (int i = 0; i < concat->n_in; i++) {
    if (i < k) first += concat->counts[i];
    c += concat->counts[i];
  }
  side s = {first, c, (uint32_t)concat->shuffle};
  return s;
}

int mptl_cuda_concat_forward(const mptl_sink *y, const mptl_source *x,
                             const mptl_cuda_concat *concat, mptl_cuda_stream stream) {
  for (int k = 0; k < concat->n_in; k++) {
    uint32_t count = (uint32_t)concat->counts[k];
    rows r = {concat->pixels, count, 0, count, {0, count, 1}, in_output(concat, k), false};
    copy(y, &x[k], &r, stream);
  }
  return mptl_launched();
}

int mptl_cuda_concat_backward(const mptl_sink *dx, const mptl_source *dy,
                              const mptl_cuda_concat *concat, mptl_cuda_stream stream) {
  for (int k = 0; k < concat->n_in; k++) {
    uint32_t count = (uint32_t)concat->counts[k];
    rows r = {concat->pixels, count, 0, count, in_output(concat, k), {0, count, 1}, false};
    if (dx[k].wanted) copy(&dx[k], dy, &r, stream);
  }
  return mptl_launched();
}

/* ---- slice ---- */

int mptl_cuda_slice_forward(const mptl_sink *y, const mptl_source *x, const mptl_cuda_slice *slice,
                            mptl_cuda_stream stream) {
  uint32_t count = (uint32_t)slice->count;
  rows r = {slice->pixels,        count, 0, count, {slice->first, slice->c, 1},
            {0, slice->count, 1}, false};
  copy(y, x, &r, stream);
  return mptl_launched();
}

/* part: writes only the slice's channels, with random bits counted from 0. whole: writes all
 * channels; since the slice begins at channel `first`, channel 0 would be `first` elements before
 * dy. */
int mptl_cuda_slice_backward(const mptl_sink *dx, const mptl_source *dy,
                             const mptl_cuda_slice *slice, mptl_cuda_stream stream) {
  uint32_t first = (uint32_t)slice->first, count = (uint32_t)slice->count;
  size_t in_front = (size_t)0 - slice->first;
  rows part = {slice->pixels, count, 0, count, {0, slice->count, 1}, {slice->first, slice->c, 1},
               true};
  rows whole = {slice->pixels, (uint32_t)slice->c,          first,
                first + count, {in_front, slice->count, 1}, {0, slice->c, 1},
                false};
  copy(dx, dy, slice->part ? &part : &whole, stream);
  return mptl_launched();
}
