/* Weighted sums of bytes: scaling an image along its rows and along its columns. Sums are of integers, so all instruction sets agree. */
#include <string.h>

#include "kernels/cpu/table.h"

#define CHUNK 64 /* bytes of a row whose sums fit the registers, or nearly */

typedef int32_t four_sums __attribute__((vector_size(16)));
typedef uint8_t four_bytes __attribute__((vector_size(4)));

static inline uint8_t rounded(int32_t sum) {
  int32_t value = sum >> MPTL_WEIGHT_BITS;
  return (uint8_t)(value > 255 ? 255 : value);
}

void MPTL_CPU(resample_row)(uint8_t *dst, const uint8_t *src, int n, const mptl_weights *w) {
  const int32_t half = 1 << (MPTL_WEIGHT_BITS - 1);
  for (int i = 0; i < n; i++) {
    const int32_t *values = w->values + (size_t)i * (size_t)w->stride;
    const uint8_t *p = src + 3 * (size_t)w->firsts[i];
    four_sums sums = {half, half, half, half}; /* the fourth is of the next pixel's red, and dropped */
    for (int t = 0; t < w->counts[i]; t++, p += 3) {
      four_bytes pixel;
      memcpy(&pixel, p, sizeof pixel);
      sums += values[t] * __builtin_convertvector(pixel, four_sums);
    }
    for (int c = 0; c < 3; c++) dst[3 * i + c] = rounded(sums[c]);
  }
}

void MPTL_CPU(resample_column)(uint8_t *dst, const uint8_t *src, size_t stride, size_t n, const int32_t *values, int count) {
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
