/* The definition of the tiles in bf16, see kernels/cpu/bf16.h. */
#include <string.h>

#include "kernels/cpu/bf16.h"
#include "kernels/round.h"

enum { SIDE = MPTL_BF16_SIDE, TERMS = MPTL_BF16_TERMS, BLOCK = MPTL_BF16_BLOCK };

static float number(uint16_t x) { return mptl_bits_f32((uint32_t)x << 16); }

static void nothing(void) {}

static void multiply_tile(float *c, const mptl_bf16_product *p, const mptl_bf16_rows *rows,
                          const uint16_t *columns) {
  for (size_t r = 0; r < SIDE; r++)
    for (size_t j = 0; j < SIDE; j++) {
      float *to = c + r * p->step + j, sum = p->end == MPTL_CHAIN_CONTINUE ? *to : 0;
      for (size_t k = 0; k < p->blocks; k++)
        for (unsigned part = 0; part < p->row_parts * p->column_parts; part++) {
          const unsigned row_part = part / p->column_parts,
                         column_part = p->column_parts == 1 ? 0 : (part % 2) ^ row_part;
          const uint16_t *a = rows->at + rows->offset[k] + r * rows->step + row_part * rows->part,
                         *b = columns + k * BLOCK + column_part * p->column_part;
          float even = 0, odd = 0;
          for (size_t i = 0; i < TERMS / 2; i++) {
            even += number(a[2 * i]) * number(b[(i * SIDE + j) * 2]);
            odd += number(a[2 * i + 1]) * number(b[(i * SIDE + j) * 2 + 1]);
          }
          sum += even + odd;
        }
      *to = p->end == MPTL_CHAIN_ADD ? *to + sum : sum;
    }
}

static void multiply(const mptl_bf16_product *p) {
  for (unsigned i = 0; i < p->down; i++)
    for (unsigned k = 0; k < p->across; k++)
      multiply_tile(p->to[i][k], p, &p->rows[i], p->columns[k]);
}

static void gather(uint16_t *to, const uint16_t *from, const size_t *row, const mptl_bf16_run *run,
                   size_t runs, size_t first) {
  for (const mptl_bf16_run *end = run + runs; run < end; run++)
    for (size_t r = 0; r < SIDE; r++)
      memcpy(to + (run->block - first) * BLOCK + r * TERMS + run->to, from + row[r] + run->from,
             run->count * sizeof *to);
}

static void transpose(float *to, const float *from, size_t step, size_t rows, size_t columns) {
  for (size_t k = 0; k < columns; k++)
    for (size_t r = 0; r < SIDE; r++) to[k * SIDE + r] = r < rows ? from[r * step + k] : 0;
}

/* Part 0 of x: its upper bits, as bf16 has them; part 1: the rest. */
static uint16_t part_of(float x, unsigned part) {
  const float high = mptl_bits_f32(mptl_f32_bits(x) & 0xffff0000u);
  return (uint16_t)(mptl_f32_bits(part == 0 ? high : x - high) >> 16);
}

static void join(uint16_t *to, const float *first, const float *second, unsigned part) {
  for (size_t j = 0; j < SIDE; j++)
    to[2 * j] = part_of(first[j], part), to[2 * j + 1] = part_of(second[j], part);
}

static void split(uint16_t *high, uint16_t *low, size_t to_step, const float *x, size_t step,
                  size_t columns, size_t rows) {
  for (; rows > 0; rows--, high += to_step, low += to_step, x += step)
    for (size_t i = 0; i < columns; i++) high[i] = part_of(x[i], 0), low[i] = part_of(x[i], 1);
}

static void pair(uint16_t *to, uint16_t *second, const uint16_t *from, size_t step, size_t n) {
  for (size_t k = 0; k < n; k++)
    for (size_t j = 0; j < SIDE; j++) {
      const size_t at = (k / 2 * SIDE + j) * 2 + k % 2;
      to[at] = from[k * step + j];
      second[at] = from[k * step + SIDE + j];
    }
}

static void turn(uint16_t *to, const uint16_t *from, size_t step) {
  for (size_t r = 0; r < SIDE; r++)
    for (size_t k = 0; k < TERMS; k++) to[r * TERMS + k] = from[k * step + r];
}

static float multiply_adds(size_t n) {
  volatile float sum = 0; /* so that the loop stays */
  for (size_t i = 0; i < n; i++) sum = sum + number(0x3f80) * number(0);
  return sum;
}

const mptl_bf16_kernels mptl_bf16_scalar = {.gain = 1,
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
                                            .multiply_adds_each = 1};
