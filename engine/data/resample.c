/* Scaling of RGB images: the filter weights, then horizontal scaling, then vertical scaling.
 * kernels/cpu/isa/resample.c computes the sums. */
#include "mptl/resample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels/cpu/table.h"

/* the filter weights of one direction, in memory that the next image reuses */
typedef struct axis {
  mptl_filter_weights weights;
  int32_t *memory;
  size_t capacity; /* numbers */
} axis;

struct mptl_resampler {
  axis columns, rows;
  uint8_t *scaled; /* [rows needed][window width][3]: after horizontal scaling */
  uint8_t *out;
  int32_t *wide; /* scratch of horizontal scaling */
  size_t scaled_capacity, out_capacity, wide_capacity;
};

mptl_status mptl_resampler_create(mptl_resampler **resampler) {
  *resampler = calloc(1, sizeof **resampler);
  return *resampler != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "resampler: no memory");
}

void mptl_resampler_destroy(mptl_resampler *resampler) {
  if (resampler == NULL) return;
  free(resampler->columns.memory);
  free(resampler->rows.memory);
  free(resampler->scaled);
  free(resampler->out);
  free(resampler->wide);
  free(resampler);
}

/* Makes *memory at least n elements of `size` bytes large; its contents are lost. */
static bool reserve(void *memory, size_t *capacity, size_t n, size_t size) {
  void **m = memory;
  if (*capacity >= n) return true;
  free(*m);
  *m = malloc(n * size);
  *capacity = *m != NULL ? n : 0;
  return *m != NULL;
}

static double triangle(double x) {
  x = fabs(x);
  return x < 1 ? 1 - x : 0;
}

/* Computes the filter weights of the scaled pixels first to first + n - 1, if `size` source pixels
 * become `scaled` ones. The operations are the same as in Pillow, and so are the weights. */
static bool make_weights(axis *a, int size, int scaled, int first, int n) {
  double scale = (double)size / scaled, width = scale < 1 ? 1 : scale;
  int stride = (int)ceil(width) * 2 + 1;
  if (!reserve(&a->memory, &a->capacity, (size_t)n * ((size_t)stride + 2), sizeof *a->memory))
    return false;
  int32_t *firsts = a->memory, *counts = firsts + n, *values = counts + n;
  for (int i = 0; i < n; i++, values += stride) {
    double centre = (first + i + 0.5) * scale, sum = 0;
    int from = (int)(centre - width + 0.5), to = (int)(centre + width + 0.5);
    if (from < 0) from = 0;
    if (to > size) to = size;
    for (int x = from; x < to; x++) sum += triangle((x - centre + 0.5) * (1 / width));
    for (int x = from; x < to; x++) {
      double weight = triangle((x - centre + 0.5) * (1 / width));
      values[x - from] =
          (int32_t)(0.5 + (sum != 0 ? weight / sum : weight) * (1 << MPTL_WEIGHT_BITS));
    }
    firsts[i] = from;
    counts[i] = to - from;
  }
  a->weights = (mptl_filter_weights){
      .stride = stride, .firsts = firsts, .counts = counts, .values = counts + n};
  return true;
}

static bool within(mptl_box box, int width, int height) {
  return box.width > 0 && box.height > 0 && box.x >= 0 && box.y >= 0 &&
         box.x <= width - box.width && box.y <= height - box.height;
}

mptl_status mptl_resample(mptl_resampler *r, const uint8_t **out, const mptl_rgb *image,
                          mptl_box from, int width, int height, mptl_box window) {
  *out = NULL;
  if (!within(from, image->width, image->height) || !within(window, width, height))
    return mptl_fail(MPTL_EINVAL,
                     "resample: %d x %d at %d, %d of %d x %d pixels to %d x %d at %d, %d of %d x "
                     "%d: not within it",
                     from.width, from.height, from.x, from.y, image->width, image->height,
                     window.width, window.height, window.x, window.y, width, height);
  bool enough = make_weights(&r->columns, from.width, width, window.x, window.width) &&
                make_weights(&r->rows, from.height, height, window.y, window.height);
  const mptl_filter_weights *rows = &r->rows.weights;
  int top = enough ? rows->firsts[0] : 0;
  int count = enough ? rows->firsts[window.height - 1] + rows->counts[window.height - 1] - top : 0;
  size_t pitch = 3 * (size_t)window.width;
  if (!enough || !reserve(&r->scaled, &r->scaled_capacity, (size_t)count * pitch, 1) ||
      !reserve(&r->out, &r->out_capacity, (size_t)window.height * pitch, 1) ||
      !reserve(&r->wide, &r->wide_capacity, 3 * ((size_t)from.width + (size_t)window.width) + 2,
               sizeof *r->wide))
    return mptl_fail(MPTL_ENOMEM, "no memory to scale an image of %d x %d pixels", image->width,
                     image->height);

  const mptl_cpu_kernels *kernels = mptl_cpu_kernels_get();
  const uint8_t *src =
      image->pixels + 3 * ((size_t)(from.y + top) * (size_t)image->width + (size_t)from.x);
  for (int y = 0; y < count; y++, src += 3 * (size_t)image->width)
    kernels->resample_row(r->scaled + (size_t)y * pitch, src, window.width, &r->columns.weights,
                          r->wide);
  for (int y = 0; y < window.height; y++)
    kernels->resample_column(r->out + (size_t)y * pitch,
                             r->scaled + (size_t)(rows->firsts[y] - top) * pitch, pitch, pitch,
                             rows->values + (size_t)y * (size_t)rows->stride, rows->counts[y]);
  *out = r->out;
  return MPTL_OK;
}
