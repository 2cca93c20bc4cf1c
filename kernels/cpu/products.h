/* Tiles of matrix products in binary32: what convolutions and linear layers are made of, in all
 * three passes. isa/products.c is compiled once per instruction set; all give the same bits.
 *
 * A tile has rows x columns results. Each is one chain of fused multiply-adds, in this order:
 *
 *   c = 0
 *   for each span t, for each i < length:
 *     k = term[t] + i
 *     tile:           c = fma(a[row[r] + span[t] + i * stride],     b[k * width + j], c)
 *     channel_tile:   c = fma(a[row[r] + span[t] + j],              b[k * step + j], c)
 *
 * A row r is an output pixel or, in backward by weights, a weight of one output channel. A span is
 * a stretch of memory: the window's pixels and channels in one image row or, in backward by
 * weights, an image row of output pixels. Columns j are channels; of a tile they are packed side by
 * side, width of them. channel_tile is for depthwise convolutions, whose column j reads channel j
 * only, and whose spans have one term.
 */
#ifndef MPTL_KERNELS_CPU_PRODUCTS_H
#define MPTL_KERNELS_CPU_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>

#include "mptl/status.h"

/* With any instruction set, at most: rows of a tile; vectors of its width. */
enum { MPTL_PRODUCT_ROWS = 12, MPTL_PRODUCT_VECTORS = 3 };

/* The sums of a tile. Offsets are in elements; row[r] + span[t] may wrap around. */
typedef struct mptl_chain {
  const float *a;
  const size_t *span, *term; /* [spans] */
  size_t spans, length, stride;
  const float *b; /* [k][width or step] */
  size_t step;    /* channel_tile only */
  /* tile only, for one span that begins where a row does: fetch what follows the rows in memory,
   * which further rows will read. */
  bool fetch_next;
} mptl_chain;

/* What is done with a tile: its chains begin at 0 and are stored, go on from the stored numbers, or
 * begin at 0 and are added to the stored numbers. */
typedef enum mptl_chain_end {
  MPTL_CHAIN_STORE,
  MPTL_CHAIN_CONTINUE,
  MPTL_CHAIN_ADD
} mptl_chain_end;

/* A line of pixels of dy and a row of x that its windows meet, of a depthwise convolution. Pixels
 * follow each other in memory, `channels` numbers apart. */
typedef struct mptl_channel_line {
  const float *x, *dy;
  size_t channels;
  int x_pixels, dy_pixels;
  int kw, stride, dilation, left; /* of windows: their pixels, and columns of padding before x */
} mptl_channel_line;

typedef struct mptl_product_kernels {
  unsigned lanes;                      /* columns of a vector */
  unsigned vectors;                    /* of a tile's width, at most */
  unsigned rows[MPTL_PRODUCT_VECTORS]; /* of 1, 2, ... vectors that are computed at once, at most */

  /* Computes rows x columns results; result (r, j) belongs in c[to[r] + j]. b's width is that of
   * whole vectors. rows and columns are at least 1; any number of rows. */
  void (*tile)(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
               unsigned rows, size_t columns, mptl_chain_end end);

  /* The same with any number of columns, for spans of one term; stores the results. */
  void (*channel_tile)(float *c, const size_t *to, const mptl_chain *chain, const size_t *row,
                       unsigned rows, size_t columns);

  /* Adds to the gradients of a window row's weights, c[kx * channels + j], for each pixel i of dy
   * for which there is such a pixel of x:
   *   fma(x[(i * stride + kx * dilation - left) * channels + j], dy[i * channels + j], c) */
  void (*channel_weights)(float *c, const mptl_channel_line *line);

  /* Copies rows of `columns` numbers, `step` numbers apart, to rows of `width` numbers side by side,
   * which end with zeros. */
  void (*copy)(float *to, size_t width, const float *from, size_t step, size_t columns,
               size_t rows);

  /* Does n * multiply_adds_each multiply-adds and no other work, for the peak rate. */
  float (*multiply_adds)(size_t n);
  size_t multiply_adds_each;
} mptl_product_kernels;

/* The kernels in use (mptl/isa.h). */
MPTL_API const mptl_product_kernels *mptl_products(void);

#endif
