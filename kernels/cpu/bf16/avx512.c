/* Tiles in bf16 (kernels/cpu/bf16.h) by AVX512-BF16: 8 rows of up to two vectors at once. */
#include "kernels/cpu/bf16/copies.h"

enum { ROWS = 8, PAIRS = MPTL_BF16_TERMS / 2 };

static void nothing(void) {}

static inline __m512bh pair_of(const uint16_t *from) {
  int both;
  __builtin_memcpy(&both, from, sizeof both);
  return (__m512bh)_mm512_set1_epi32(both);
}

/* Rows [row, row + 8) of the tiles beside each other. */
static inline __attribute__((always_inline)) void multiply_rows(const mptl_bf16_product *p,
                                                                unsigned tile, size_t row,
                                                                const unsigned across) {
  const mptl_bf16_rows *rows = &p->rows[tile];
  __m512 sum[ROWS][MPTL_BF16_TILES];
  for (size_t r = 0; r < ROWS; r++)
    for (unsigned k = 0; k < across; k++)
      sum[r][k] = p->end == MPTL_CHAIN_CONTINUE
                      ? _mm512_loadu_ps(p->to[tile][k] + (row + r) * p->step)
                      : _mm512_setzero_ps();
  for (size_t block = 0; block < p->blocks; block++)
    for (unsigned part = 0; part < p->row_parts * p->column_parts; part++) {
      const unsigned row_part = part / p->column_parts,
                     column_part = p->column_parts == 1 ? 0 : (part % 2) ^ row_part;
      const size_t at = block * MPTL_BF16_BLOCK + column_part * p->column_part;
      const uint16_t *a = rows->at + rows->offset[block] + row * rows->step + row_part * rows->part;
      for (size_t i = 0; i < PAIRS; i++, a += 2) {
        __m512bh b[MPTL_BF16_TILES];
        for (unsigned k = 0; k < across; k++)
          b[k] = (__m512bh)_mm512_loadu_si512(p->columns[k] + at + i * 2 * MPTL_BF16_SIDE);
        for (size_t r = 0; r < ROWS; r++) {
          const __m512bh x = pair_of(a + r * rows->step);
          for (unsigned k = 0; k < across; k++) sum[r][k] = _mm512_dpbf16_ps(sum[r][k], x, b[k]);
        }
      }
    }
  for (size_t r = 0; r < ROWS; r++)
    for (unsigned k = 0; k < across; k++) {
      float *to = p->to[tile][k] + (row + r) * p->step;
      _mm512_storeu_ps(
          to, p->end == MPTL_CHAIN_ADD ? _mm512_add_ps(_mm512_loadu_ps(to), sum[r][k]) : sum[r][k]);
    }
}

static void multiply(const mptl_bf16_product *p) {
  for (unsigned i = 0; i < p->down; i++)
    for (size_t row = 0; row < MPTL_BF16_SIDE; row += ROWS)
      if (p->across == 2)
        multiply_rows(p, i, row, 2);
      else
        multiply_rows(p, i, row, 1);
}

static float multiply_adds(size_t n) {
  __m512 sum[2 * ROWS], all = _mm512_setzero_ps();
  __m512i x = _mm512_set1_epi32(0x3f803f80), b = _mm512_setzero_si512();
  for (int r = 0; r < 2 * ROWS; r++) sum[r] = _mm512_setzero_ps();
  for (size_t i = 0; i < n; i++) {
    __asm__ volatile("" : "+v"(x), "+v"(b)); /* numbers that the compiler cannot foresee */
#pragma GCC unroll 16
    for (int r = 0; r < 2 * ROWS; r++) sum[r] = _mm512_dpbf16_ps(sum[r], (__m512bh)x, (__m512bh)b);
  }
  for (int r = 0; r < 2 * ROWS; r++) all = _mm512_add_ps(all, sum[r]);
  return _mm512_reduce_add_ps(all);
}

const mptl_bf16_kernels mptl_bf16_avx512 = {
    .gain = 2,
    .begin = nothing,
    .end = nothing,
    .multiply = multiply,
    .gather = gather,
    .transpose = transpose,
    .join = join,
    .split = split,
    .pair = pair,
    .turn = turn,
    .multiply_adds = multiply_adds,
    .multiply_adds_each = (size_t)2 * ROWS * MPTL_BF16_TERMS};
