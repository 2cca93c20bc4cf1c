/* Tiles of matrix products in binary32: what convolutions and linear layers are made of, in all
 * three passes. isa/products.c is compiled once per instruction set; all give the same bits.
 *
 * A tile has rows x columns results. Each is one chain of fused multiply-adds, in this order:
 *
 *   c = 0
 *   for each span t, for each i < length:
 *     c = fma(a[row[r] + span[t] + i * stride], b[(t * length + i) * width + j], c)
 *
 * A row r is an output pixel or, in backward by weights, a weight of one output channel. A span is
 * a stretch of memory: the window's pixels and channels in one image row or, in backward by
 * weights, an image row of output pixels. Columns j are channels, packed side by side, width of
 * them.
 */
#ifndef MPTL_KERNELS_CPU_PRODUCTS_H
#define MPTL_KERNELS_CPU_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>

#include "mptl/status.h"

enum { MPTL_PRODUCT_ROWS = 16 }; /* rows of a tile, at most, with any instruction set */

/* The sums of a tile. Offsets are in elements. */
typedef struct mptl_chain {
  const float *a;
  const size_t *span; /* [spans] */
  size_t spans, length, stride;
  const float *b; /* [spans * length][width] */
} mptl_chain;

/* What is done with a tile: its chains begin at 0 and are stored, go on from the stored numbers, or
 * begin at 0 and are added to the stored numbers. */
typedef enum mptl_chain_end {
  MPTL_CHAIN_STORE,
  MPTL_CHAIN_CONTINUE,
  MPTL_CHAIN_ADD
} mptl_chain_end;

typedef struct mptl_product_kernels {
  unsigned lanes;   /* columns of a vector */
  unsigned rows;    /* of a full tile */
  unsigned vectors; /* of a full tile's width */

  /* Computes rows x width results, width = vectors * lanes; result (r, j) belongs in c[to[r] + j].
   * rows and vectors are 1 to the full tile's. */
  void (*tile)(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
               unsigned rows, unsigned vectors, mptl_chain_end end);

  /* Does n * rows * vectors * lanes multiply-adds and no other work, for the peak rate. */
  float (*multiply_adds)(size_t n);
} mptl_product_kernels;

/* The kernels in use (mptl/isa.h). */
MPTL_API const mptl_product_kernels *mptl_products(void);

#endif
