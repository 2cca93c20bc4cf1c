/* Tiles of matrix products in bf16 with sums in binary32: what convolutions and linear layers are
 * made of where the processor has such instructions (bf16/).
 *
 * A tile is 16 x 16 results. Its operands are cut into blocks of 32 terms. A block of the first
 * operand has 16 rows of 32 numbers; a block of the second one has 16 pairs of terms, each with 16
 * columns of two numbers, so that it is 512 numbers side by side: [term / 2][column][term % 2].
 *
 * A number of up to 16 significant bits is the exact sum of two bf16 numbers, its parts: its upper
 * bits and the rest. An operand may be given in two parts; then a block is multiplied part by part,
 * in the order (0, 0), (0, 1), (1, 1), (1, 0) of the first operand's and the second one's, as far as
 * there are such parts.
 *
 * Products are exact in binary32. Each instruction set adds them in an order of its own:
 *
 *   amx          for each block  e = sum of the even terms, o = sum of the odd ones, one after the
 *                and parts       other; then c = c + (e + o)
 *   avx512_bf16  for each pair   c = (c + term 2i + 1) + term 2i
 *
 * where each + rounds to binary32. Subnormal numbers count as zero.
 */
#ifndef MPTL_KERNELS_CPU_BF16_H
#define MPTL_KERNELS_CPU_BF16_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/products.h"

enum {
  MPTL_BF16_SIDE = 16,  /* rows and columns of a tile */
  MPTL_BF16_TERMS = 32, /* of a block */
  MPTL_BF16_BLOCK = MPTL_BF16_SIDE * MPTL_BF16_TERMS,
  MPTL_BF16_TILES = 2 /* beside and below each other that are computed at once, at most */
};

/* 16 rows of the first operand: row r of block k of part p begins at
 * at[offset[k] + r * step + p * part]. */
typedef struct mptl_bf16_rows {
  const uint16_t *at;
  size_t step, part;
  const size_t *offset; /* [blocks] */
} mptl_bf16_rows;

/* Up to 2 x 2 tiles. Result (r, j) of tile [i][k] belongs in to[i][k][r * step + j]. */
typedef struct mptl_bf16_product {
  mptl_bf16_rows rows[MPTL_BF16_TILES];
  const uint16_t *columns[MPTL_BF16_TILES]; /* block after block */
  size_t column_part;                       /* distance of their parts */
  unsigned down, across;                    /* tiles: 1 or 2 */
  unsigned row_parts, column_parts;         /* 1 or 2 */
  size_t blocks;                            /* 0: results are 0 before `end` */
  float *to[MPTL_BF16_TILES][MPTL_BF16_TILES];
  size_t step;
  mptl_chain_end end;
} mptl_bf16_product;

/* A stretch of numbers of a row that is copied into a block: from place `from` on, to numbers
 * [to, to + count) of the 32 of block `block`. */
typedef struct mptl_bf16_run {
  size_t from, block;
  unsigned to, count;
} mptl_bf16_run;

typedef struct mptl_bf16_kernels {
  unsigned gain; /* how many times as fast as binary32 in vectors, about */

  /* A thread calls begin before it multiplies and end after it. */
  void (*begin)(void);
  void (*end)(void);
  void (*multiply)(const mptl_bf16_product *product);

  /* Copies runs of 16 rows, which begin at from + row[r], into blocks: block k belongs at
   * to + (k - first) * 512. Other numbers of the blocks are left alone. */
  void (*gather)(uint16_t *to, const uint16_t *from, const size_t *row, const mptl_bf16_run *run,
                 size_t runs, size_t first);

  /* The transpose of `rows` rows, at most 16, of `columns` numbers, step numbers apart:
   * [columns][16], with zeros for rows that are missing. */
  void (*transpose)(float *to, const float *from, size_t step, size_t rows, size_t columns);
  /* A part of a pair of terms of 16 columns of the second operand: [column][2]. */
  void (*join)(uint16_t *to, const float *first, const float *second, unsigned part);
  /* Both parts of rows of `columns` numbers, step numbers apart, to rows to_step apart. */
  void (*split)(uint16_t *high, uint16_t *low, size_t to_step, const float *x, size_t step,
                size_t columns, size_t rows);

  /* Pairs of terms of the second operand, for two tiles of columns: numbers [0, 32) of each of n
   * terms, which are step numbers apart, become [n / 2][16][2] at to and, those of columns 16 to
   * 31, at second. n is even. */
  void (*pair)(uint16_t *to, uint16_t *second, const uint16_t *from, size_t step, size_t n);

  /* A block of the first operand from its transpose: 32 terms, step numbers apart, of 16 rows. */
  void (*turn)(uint16_t *to, const uint16_t *from, size_t step);

  /* Does n * multiply_adds_each multiply-adds and no other work, for the peak rate. Between begin
   * and end. */
  float (*multiply_adds)(size_t n);
  size_t multiply_adds_each;
} mptl_bf16_kernels;

/* By loops, on any processor, in amx's order: for specs. */
MPTL_API extern const mptl_bf16_kernels mptl_bf16_scalar;

/* The kernels in use (mptl/isa.h); NULL: the instruction set has none. */
MPTL_API const mptl_bf16_kernels *mptl_bf16(void);

#endif
