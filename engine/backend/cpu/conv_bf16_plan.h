/* For conv_bf16.c and conv_bf16_weights.c: what a pass in bf16 knows before it runs. */
#ifndef MPTL_BACKEND_CPU_CONV_BF16_PLAN_H
#define MPTL_BACKEND_CPU_CONV_BF16_PLAN_H

#include "backend/cpu/conv_bf16.h"
#include "backend/cpu/conv_plan.h"

enum {
  MPTL_CONV_PIECE = 36, /* blocks that pixels meet before the next ones, times the parts, at most */
  MPTL_CONV_PIXELS = 256 /* that meet a piece of all weights one after another */
};

/* A phase's windows in blocks. */
typedef struct mptl_conv_blocks {
  size_t n, runs, packed; /* blocks; place of its weights */
  mptl_bf16_run *run;
  size_t *first; /* [n + 1]: of a block's runs */
  size_t *place; /* [n]: of a block in a window, if is_whole */
  bool is_whole; /* each block is one run */
} mptl_conv_blocks;

struct mptl_conv_bf16 {
  mptl_conv v;
  const mptl_bf16_kernels *kernels;
  unsigned row_parts, column_parts; /* of the operands as tiles have them */

  mptl_conv_blocks *blocks;         /* by phase */
  size_t packed;                    /* numbers */
  int band_images, chunk_pixels;    /* at most; of a phase, whole tiles */
  size_t piece;                     /* blocks, at most */
  size_t gathered[MPTL_CONV_PIECE]; /* places of gathered blocks */

  /* Backward by weights. A unit has some images, or some lines of one. A line of it, which all its
   * images have, has line_pixels: whole pairs. */
  int unit_images, unit_lines, line_pixels;
  size_t unit_blocks, *blocks_of_unit; /* of terms, and their places */
  int *class_rows, *class_of, *row_of; /* conv_bf16_weights.c, find_classes */
  int thread_rows, thread_columns;     /* how threads share out tiles of weights */
};

/* Tiles of result channels, and the channels with those that fill the last tile. */
static inline size_t mptl_conv_column_tiles(const mptl_conv_bf16 *f) {
  return ((size_t)f->v.columns + MPTL_BF16_SIDE - 1) / MPTL_BF16_SIDE;
}
static inline size_t mptl_conv_bf16_columns(const mptl_conv_bf16 *f) {
  return mptl_conv_column_tiles(f) * MPTL_BF16_SIDE;
}

/* Bytes of rows of the operand in all parts, with their columns of zeros. */
static inline size_t mptl_conv_padded_bytes(const mptl_conv_bf16 *f, int rows) {
  return f->row_parts * (size_t)rows * (size_t)f->v.pitch * (size_t)f->v.c * sizeof(uint16_t);
}

/* Numbers of a part of a band's operand. */
static inline size_t mptl_conv_band_part(const mptl_conv_bf16 *f) {
  return mptl_conv_padded_bytes(f, f->v.band_rows) / f->row_parts / sizeof(uint16_t);
}

/* Whether results of a chunk are rounded in another order than that of the tiles. */
static inline bool mptl_conv_moves_results(const mptl_conv_bf16 *f) {
  return f->v.n_phases > 1 || mptl_conv_bf16_columns(f) != (size_t)f->v.out_c;
}

/* Of each thread: a band's operand; a chunk's gathered blocks, its results in tiles, and in their
 * order; places of its lines. */
typedef struct mptl_conv_bf16_areas {
  size_t operand, blocks, tiles, results, places, bytes;
} mptl_conv_bf16_areas;

mptl_conv_bf16_areas mptl_conv_bf16_areas_of(const mptl_conv_bf16 *conv);

/* Writes the parts of rows of `columns` elements of a value in bf16: the first row from element
 * `offset` on, rows `step` elements apart in the value and to_step apart in `to`; parts are `part`
 * apart (conv_bf16.c). */
void mptl_conv_read(const mptl_conv_bf16 *conv, const mptl_source *source, unsigned parts,
                    size_t offset, size_t columns, size_t step, size_t rows, uint16_t *to,
                    size_t to_step, size_t part);

/* Backward by weights (conv_bf16_weights.c). */
mptl_status mptl_conv_bf16_plan_weights(mptl_conv_bf16 *conv);
size_t mptl_conv_bf16_weights_bytes(const mptl_conv_bf16 *conv);

#endif
