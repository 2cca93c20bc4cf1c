/* concat and slice: elements go to other places, and to the formats of these. */
#include "kernels/cuda/elements.h"

/* ---- concat: a launch for each input, which are few and have their own storage ---- */

/* Where an input's channels are in a pixel of the output: count of them from first on of c, which are then shuffled. */
typedef struct places {
  size_t pixels, c, first, count, shuffle;
} places;

static places places_of(const mptl_cuda_concat *concat, int k) {
  places p = {concat->pixels, 0, 0, concat->counts[k], concat->shuffle};
  for (int i = 0; i < concat->n_in; i++) {
    if (i < k) p.first += concat->counts[i];
    p.c += concat->counts[i];
  }
  return p;
}

/* The place in the output of an input's element. A shuffle makes channel (i, group) of (group, i). */
MPTL_DEVICE size_t output_place(const places &p, size_t element) {
  size_t channel = p.first + element % p.count, size = p.c / p.shuffle;
  return element / p.count * p.c + channel % size * p.shuffle + channel / size;
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    concat_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, MPTL_PARAM places p) {
  mptl_counts counts = mptl_no_counts();
  size_t n = p.pixels * p.count;
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_step()) {
    size_t to = output_place(p, i);
    mptl_put(y, to, to, mptl_read_one(x, i), &counts);
  }
  mptl_add_counts(y.stats, counts, n);
}

static __global__ void __launch_bounds__(MPTL_THREADS)
    concat_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg dy, MPTL_PARAM places p) {
  mptl_counts counts = mptl_no_counts();
  size_t n = p.pixels * p.count;
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_step())
    mptl_put(dx, i, i, mptl_read_one(dy, output_place(p, i)), &counts);
  mptl_add_counts(dx.stats, counts, n);
}

int mptl_cuda_concat_forward(const mptl_cuda_sink *y, const mptl_cuda_source *x, const mptl_cuda_concat *concat,
                             mptl_cuda_stream stream) {
  for (int k = 0; k < concat->n_in; k++) {
    places p = places_of(concat, k);
    if (p.pixels * p.count == 0) continue;
    MPTL_LAUNCH(concat_forward_kernel, mptl_element_blocks(p.pixels * p.count), MPTL_THREADS, 0, stream)
    (mptl_sink_of(y, 0), mptl_source_of(&x[k], 0), p);
  }
  return mptl_launched();
}

int mptl_cuda_concat_backward(const mptl_cuda_sink *dx, const mptl_cuda_source *dy, const mptl_cuda_concat *concat,
                              mptl_cuda_stream stream) {
  for (int k = 0; k < concat->n_in; k++) {
    places p = places_of(concat, k);
    if (dx[k].stats == NULL || p.pixels * p.count == 0) continue;
    MPTL_LAUNCH(concat_backward_kernel, mptl_element_blocks(p.pixels * p.count), MPTL_THREADS, 0, stream)
    (mptl_sink_of(&dx[k], 0), mptl_source_of(dy, 0), p);
  }
  return mptl_launched();
}

/* ---- slice ---- */

static __global__ void __launch_bounds__(MPTL_THREADS)
    slice_forward_kernel(MPTL_PARAM mptl_sink_arg y, MPTL_PARAM mptl_source_arg x, MPTL_PARAM mptl_cuda_slice s) {
  mptl_counts counts = mptl_no_counts();
  size_t n = s.pixels * s.count;
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_step())
    mptl_put(y, i, i, mptl_read_one(x, i / s.count * s.c + s.first + i % s.count), &counts);
  mptl_add_counts(y.stats, counts, n);
}

/* The slice's channels only: random bits count from these. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    slice_part_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg dy, MPTL_PARAM mptl_cuda_slice s) {
  mptl_counts counts = mptl_no_counts();
  size_t n = s.pixels * s.count;
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_step())
    mptl_put(dx, i / s.count * s.c + s.first + i % s.count, i, mptl_read_one(dy, i), &counts);
  mptl_add_counts(dx.stats, counts, n);
}

/* All channels. */
static __global__ void __launch_bounds__(MPTL_THREADS)
    slice_backward_kernel(MPTL_PARAM mptl_sink_arg dx, MPTL_PARAM mptl_source_arg dy, MPTL_PARAM mptl_cuda_slice s) {
  mptl_counts counts = mptl_no_counts();
  size_t n = s.pixels * s.c;
  for (size_t i = mptl_first_element(); i < n; i += mptl_element_step()) {
    size_t c = i % s.c - s.first; /* beyond the last, if it is in front of the first */
    mptl_put(dx, i, i, c < s.count ? mptl_read_one(dy, i / s.c * s.count + c) : 0.0f, &counts);
  }
  mptl_add_counts(dx.stats, counts, n);
}

int mptl_cuda_slice_forward(const mptl_cuda_sink *y, const mptl_cuda_source *x, const mptl_cuda_slice *slice,
                            mptl_cuda_stream stream) {
  size_t n = slice->pixels * slice->count;
  if (n == 0) return 0;
  MPTL_LAUNCH(slice_forward_kernel, mptl_element_blocks(n), MPTL_THREADS, 0, stream)
  (mptl_sink_of(y, 0), mptl_source_of(x, 0), *slice);
  return mptl_launched();
}

int mptl_cuda_slice_backward(const mptl_cuda_sink *dx, const mptl_cuda_source *dy, const mptl_cuda_slice *slice,
                             mptl_cuda_stream stream) {
  size_t n = slice->pixels * (slice->part ? slice->count : slice->c);
  if (n == 0) return 0;
  mptl_sink_arg sink = mptl_sink_of(dx, 0);
  mptl_source_arg source = mptl_source_of(dy, 0);
  if (slice->part)
    MPTL_LAUNCH(slice_part_kernel, mptl_element_blocks(n), MPTL_THREADS, 0, stream)(sink, source, *slice);
  else
    MPTL_LAUNCH(slice_backward_kernel, mptl_element_blocks(n), MPTL_THREADS, 0, stream)(sink, source, *slice);
  return mptl_launched();
}
