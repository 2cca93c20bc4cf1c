/* Weighted sums of bytes, which scale an image along its rows and along its columns. Integers are
 * summed, so all instruction sets give the same result. */
#include <string.h>

#include "kernels/cpu/table.h"

#define CHUNK 64 /* bytes of a row whose sums are kept in registers */

typedef int32_t four __attribute__((vector_size(16)));

static inline uint8_t rounded(int32_t sum) {
  int32_t value = sum >> MPTL_WEIGHT_BITS;
  return (uint8_t)(value > 255 ? 255 : value);
}

void MPTL_CPU(resample_row)(uint8_t *dst, const uint8_t *src, int n, const mptl_filter_weights *w,
                            int32_t *scratch) {
  size_t first = 3 * (size_t)w->firsts[0], end = 3 * (size_t)(w->firsts[n - 1] + w->counts[n - 1]),
         size = end - first;
  int32_t *sums = scratch + size + 1,
          *pixels = scratch; /* pixels: the source, converted once in advance */
  for (size_t i = 0; i < size; i++) pixels[i] = src[first + i];
  pixels[size] = 0;
  for (int i = 0; i < n; i++) {
    const int32_t *values = w->values + (size_t)i * (size_t)w->stride,
                  *p = pixels + 3 * (size_t)w->firsts[i] - first;
    four sum = {0}, pixel; /* the fourth sum has the red of the next pixel; it is overwritten */
    for (int t = 0; t < w->counts[i]; t++, p += 3) {
      memcpy(&pixel, p, sizeof pixel);
      sum += values[t] * pixel;
    }
    memcpy(sums + 3 * i, &sum, sizeof sum);
  }
  for (int i = 0; i < 3 * n; i++) dst[i] = rounded(sums[i] + (1 << (MPTL_WEIGHT_BITS - 1)));
}

void MPTL_CPU(resample_column)(uint8_t *dst, const uint8_t *src, size_t stride, size_t n,
                               const int32_t *values, int count) {
  int32_t sums[CHUNK];
  for (size_t x = 0; x < n; x += CHUNK) {
    size_t width = n - x < CHUNK ? n - x : CHUNK;
    for (size_t i = 0; i < CHUNK; i++) sums[i] = 1 << (MPTL_WEIGHT_BITS - 1);
    const uint8_t *p = src + x;
    for (int t = 0; t < count; t++, p += stride) {
      if (width == CHUNK) {
        for (size_t i = 0; i < CHUNK; i++) sums[i] += values[t] * p[i];
      } else {
        for (size_t i = 0; i < width; i++) sums[i] += values[t] * p[i];
      }
    }
    for (size_t i = 0; i < width; i++) dst[x + i] = rounded(sums[i]);
  }
}
