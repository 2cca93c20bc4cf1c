/* Copies of the operands of tiles in bf16 (kernels/cpu/bf16.h), in AVX-512: for amx.c and
 * avx512.c. */
#ifndef MPTL_KERNELS_CPU_BF16_COPIES_H
#define MPTL_KERNELS_CPU_BF16_COPIES_H

#include <immintrin.h>

#include "kernels/cpu/bf16.h"

static void gather(uint16_t *to, const uint16_t *from, const size_t *row, const mptl_bf16_run *run,
                   size_t runs, size_t first) {
  for (const mptl_bf16_run *end = run + runs; run < end; run++) {
    uint16_t *block = to + (run->block - first) * MPTL_BF16_BLOCK + run->to;
    const uint16_t *x = from + run->from;
    if (run->count == MPTL_BF16_TERMS) {
      for (size_t r = 0; r < MPTL_BF16_SIDE; r++)
        _mm512_storeu_si512(block + r * MPTL_BF16_TERMS, _mm512_loadu_si512(x + row[r]));
      continue;
    }
    const __mmask32 those = (__mmask32)((1ull << run->count) - 1);
    for (size_t r = 0; r < MPTL_BF16_SIDE; r++)
      _mm512_mask_storeu_epi16(block + r * MPTL_BF16_TERMS, those,
                               _mm512_maskz_loadu_epi16(those, x + row[r]));
  }
}

/* Numbers 0, 32, 1, 33, ... of two vectors; and 16, 48, 17, 49, ... */
static inline __m512i zip(int first) {
  uint16_t index[32];
  for (int i = 0; i < 32; i++) index[i] = (uint16_t)(first + i / 2 + i % 2 * 32);
  return _mm512_loadu_si512(index);
}

static void pair(uint16_t *to, uint16_t *second, const uint16_t *from, size_t step, size_t n) {
  const __m512i low = zip(0), high = zip(16);
  for (; n > 0; n -= 2, from += 2 * step, to += 32, second += 32) {
    const __m512i even = _mm512_loadu_si512(from), odd = _mm512_loadu_si512(from + step);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, low, odd));
    _mm512_storeu_si512(second, _mm512_permutex2var_epi16(even, high, odd));
  }
}

/* Terms 2i and 2i + 1 of 16 rows, as 16 pairs. */
static inline __m512i load_pairs(const uint16_t *from, size_t step, __m512i zipped) {
  const __m256i even = _mm256_loadu_si256((const __m256i *)from);
  const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(even),
                                          _mm256_loadu_si256((const __m256i *)(from + step)), 1);
  return _mm512_permutexvar_epi16(zipped, both);
}

/* Transposes 16 x 16 numbers of 32 bits: in squares of 4 x 4 within 128 bits, then the squares. */
static inline __attribute__((always_inline)) void transpose_16(__m512i *to, const __m512i *from) {
  __m512i square[4][4]; /* [i][k]: rows 4 l + k, for l = 0 to 3, of columns 4 i to 4 i + 3 */
#pragma GCC unroll 4
  for (size_t i = 0; i < 4; i++) {
    const __m512i *x = from + 4 * i;
    const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]),
                  c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
    square[i][0] = _mm512_unpacklo_epi64(a, c), square[i][1] = _mm512_unpackhi_epi64(a, c);
    square[i][2] = _mm512_unpacklo_epi64(b, d), square[i][3] = _mm512_unpackhi_epi64(b, d);
  }
#pragma GCC unroll 4
  for (size_t k = 0; k < 4; k++) {
    const __m512i a = _mm512_shuffle_i32x4(square[0][k], square[1][k], 0x88),
                  b = _mm512_shuffle_i32x4(square[0][k], square[1][k], 0xdd),
                  c = _mm512_shuffle_i32x4(square[2][k], square[3][k], 0x88),
                  d = _mm512_shuffle_i32x4(square[2][k], square[3][k], 0xdd);
    to[k] = _mm512_shuffle_i32x4(a, c, 0x88), to[4 + k] = _mm512_shuffle_i32x4(b, d, 0x88);
    to[8 + k] = _mm512_shuffle_i32x4(a, c, 0xdd), to[12 + k] = _mm512_shuffle_i32x4(b, d, 0xdd);
  }
}

static void turn(uint16_t *to, const uint16_t *from, size_t step) {
  uint16_t index[32];
  for (int i = 0; i < 32; i++) index[i] = (uint16_t)(i / 2 + i % 2 * 16);
  const __m512i zipped = _mm512_loadu_si512(index);
  __m512i x[16], y[16];
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i++) x[i] = load_pairs(from + i * 2 * step, step, zipped);
  transpose_16(y, x);
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i++) _mm512_storeu_si512(to + i * MPTL_BF16_TERMS, y[i]);
}

static void transpose(float *to, const float *from, size_t step, size_t rows, size_t columns) {
  for (size_t k = 0; k < columns; k += 16) {
    const size_t n = columns - k < 16 ? columns - k : 16;
    const __mmask16 those = (__mmask16)((1u << n) - 1);
    __m512i x[16], y[16];
#pragma GCC unroll 16
    for (size_t r = 0; r < 16; r++)
      x[r] =
          r < rows ? _mm512_maskz_loadu_epi32(those, from + r * step + k) : _mm512_setzero_si512();
    transpose_16(y, x);
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
      if (i < n) _mm512_storeu_si512(to + (k + i) * MPTL_BF16_SIDE, y[i]);
  }
}

/* A part of 16 numbers, in the upper halves of 32 bits. */
static inline __m512i part_of(__m512 x, unsigned part) {
  const __m512i upper = _mm512_set1_epi32((int)0xffff0000u),
                high = _mm512_and_si512(_mm512_castps_si512(x), upper);
  if (part == 0) return high;
  return _mm512_castps_si512(_mm512_sub_ps(x, _mm512_castsi512_ps(high)));
}

static void join(uint16_t *to, const float *first, const float *second, unsigned part) {
  _mm512_storeu_si512(to,
                      _mm512_or_si512(_mm512_srli_epi32(part_of(_mm512_loadu_ps(first), part), 16),
                                      part_of(_mm512_loadu_ps(second), part)));
}

static void split(uint16_t *high, uint16_t *low, size_t to_step, const float *x, size_t step,
                  size_t columns, size_t rows) {
  for (; rows > 0; rows--, high += to_step, low += to_step, x += step)
    for (size_t i = 0; i < columns; i += 16) {
      const size_t left = columns - i;
      const __mmask16 those = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffff);
      const __m512 v = _mm512_maskz_loadu_ps(those, x + i);
      const __m256i both[2] = {_mm512_cvtepi32_epi16(_mm512_srli_epi32(part_of(v, 0), 16)),
                               _mm512_cvtepi32_epi16(_mm512_srli_epi32(part_of(v, 1), 16))};
      _mm256_mask_storeu_epi16(high + i, those, both[0]);
      _mm256_mask_storeu_epi16(low + i, those, both[1]);
    }
}

#endif
