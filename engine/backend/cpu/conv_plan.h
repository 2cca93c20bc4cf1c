/* For conv.c and conv_weights.c: what a pass of a convolution knows before it runs: which places of
 * its operand its results read, in which order, and how the work is cut into pieces. */
#ifndef MPTL_BACKEND_CPU_CONV_PLAN_H
#define MPTL_BACKEND_CPU_CONV_PLAN_H

#include "backend/cpu/conv.h"
#include "kernels/cpu/products.h"

/* Taps [from, end) of a window along one axis. */
typedef struct mptl_conv_range {
  int from, end;
} mptl_conv_range;

/* The taps, of n in ascending places at[] behind `first`, whose places are 0 to size - 1. */
static inline mptl_conv_range mptl_conv_inside(const int *at, int n, int first, int size) {
  mptl_conv_range r = {0, n};
  while (r.from < r.end && first + at[r.from] < 0) r.from++;
  while (r.from < r.end && first + at[r.end - 1] >= size) r.end--;
  return r;
}
static inline bool mptl_conv_same(mptl_conv_range a, mptl_conv_range b) {
  return a.from == b.from && a.end == b.end;
}

/* Columns of a phase whose windows have the same columns inside the operand. Their taps, row by row
 * of the window, are spans: places in the operand, beginning with that of the window, and in the
 * weights. */
typedef struct mptl_conv_kind {
  int x, end;
  size_t *span, *term; /* [rows of the window * spans of a row] */
  size_t spans_of_row, length;
} mptl_conv_kind;

/* A set of the results' pixels whose windows have the same taps, apart from padding: of a forward
 * pass all pixels; of a backward pass by data those with the same remainder by the strides. Taps
 * are the weights of the window that reach a pixel, in the order of their places in the operand. */
typedef struct mptl_conv_phase {
  int y0, x0, rows, columns; /* its first result pixel, how many rows and columns of them */
  int *at_y, window_rows;    /* of the window: which rows of the operand, counted from its first */
  int *tap, taps;            /* index ky * kw + kx */
  int kinds;
  mptl_conv_kind *kind;
  size_t packed; /* place of its weights among the packed ones */
} mptl_conv_phase;

struct mptl_conv {
  mptl_conv_shape s;
  mptl_pass pass;
  int threads;
  const mptl_product_kernels *kernels;
  bool by_channel; /* depthwise: a result channel reads the same channel of the operand */
  bool is_padded;  /* the operand is read with rows and columns of zeros around it (conv_bf16.h) */

  /* The operand that is read in windows, [n][h][w][c]. The first window begins `top` rows above row
   * 0 and `left` columns before column 0. Rows are `pitch` pixels apart. */
  int h, w, c, top, left, pitch;

  /* Groups of channels, those of the operand and of the results in each. By channel there is one
   * group, and one panel. */
  int groups, group_in, columns;
  unsigned vectors; /* of a panel, at most */

  int in_stride_y,
      in_stride_x; /* between result pixels that follow each other, in operand pixels */
  int out_stride_y, out_stride_x, out_h, out_w, out_c; /* of results */

  int n_phases;
  mptl_conv_phase *phases;
  size_t packed_floats;
  size_t piece_floats; /* of a panel's piece that stays in a cache */

  /* A line of an image: its pixels of row y of each phase. A band is what a thread takes at a time:
   * whole images, or some lines of one image. A chunk is some lines of a band, whose results stay
   * in the cache until they are stored. */
  int lines, reach;          /* of an image; operand rows that a line reads */
  int bands, bands_of_image; /* in all; 0: bands are whole images */
  int band_lines, band_rows; /* of a band, at most; its operand rows */
  int chunk_lines;

  /* Backward by weights: a block is block_lines of a unit, which is one image or several. A portion
   * is prepared together, and has some units, or some blocks of one. swapped: x and dy have changed
   * places, and so have s.ic and s.oc. */
  bool swapped;
  int unit_images, block_lines, portion_units, portion_lines, portion_rows;
  int packed_channels; /* of the operand, side by side: [channels][row][x][of these] */
};

/* Fills in a zeroed record whose shape, pass, threads and kernels are set. mptl_conv_release frees
 * what it allocated, also after an error. */
mptl_status mptl_conv_plan(mptl_conv *conv);
void mptl_conv_release(mptl_conv *conv);

static inline int mptl_conv_least(int a, int b) { return a < b ? a : b; }

/* Columns of a group in vectors, cut into panels of about the same number of them. */
static inline int mptl_conv_vectors(const mptl_conv *v) {
  return (v->columns + (int)v->kernels->lanes - 1) / (int)v->kernels->lanes;
}
static inline int mptl_conv_panels(const mptl_conv *v) {
  return v->by_channel ? 1 : (mptl_conv_vectors(v) + (int)v->vectors - 1) / (int)v->vectors;
}

static inline size_t mptl_conv_row_floats(const mptl_conv *v) {
  return (size_t)v->w * (size_t)v->c;
}
static inline size_t mptl_conv_padded_columns(const mptl_conv *v) {
  return v->by_channel ? (size_t)v->columns : (size_t)mptl_conv_vectors(v) * v->kernels->lanes;
}

/* A panel of a group of channels: its first column in the group, its width of whole vectors (by
 * channel: all channels), how many of its columns are channels, and how many columns are in front
 * of it in all groups. */
typedef struct mptl_conv_panel {
  size_t begin, width, columns, place;
} mptl_conv_panel;

static inline mptl_conv_panel mptl_conv_panel_at(const mptl_conv *v, int group, int panel) {
  const size_t lanes = v->kernels->lanes, vectors = (size_t)mptl_conv_vectors(v),
               n = (size_t)mptl_conv_panels(v), first = vectors * (size_t)panel / n,
               end = vectors * ((size_t)panel + 1) / n;
  mptl_conv_panel p = {.begin = first * lanes, .width = (end - first) * lanes};
  const size_t left = (size_t)v->columns - p.begin;
  p.columns = left < p.width ? left : p.width;
  if (v->by_channel) p.width = p.columns;
  p.place = (size_t)group * mptl_conv_padded_columns(v) + p.begin;
  return p;
}

/* The operand rows that windows of lines [line, line + n) reach, as far as there are such rows; none
 * if the windows are all padding. */
static inline int mptl_conv_first_row(const mptl_conv *v, int line) {
  const int y = line * v->in_stride_y - v->top;
  return y > 0 ? y : 0;
}
static inline int mptl_conv_end_row(const mptl_conv *v, int line, int n) {
  const int y = mptl_conv_least((line + n - 1) * v->in_stride_y - v->top + v->reach, v->h),
            first = mptl_conv_first_row(v, line);
  return y > first ? y : first;
}

/* Where windows are padded (is_padded): rows of zeros and of the operand that n lines read; one, if
 * no window has a weight. */
static inline int mptl_conv_padded_rows(const mptl_conv *v, int n) {
  return (n - 1) * v->in_stride_y + (v->reach > 0 ? v->reach : 1);
}

/* Whole images, or some lines of one image, beginning with line `line` of the first image. */
typedef struct mptl_conv_band {
  int image, images, line, lines;
  int row, rows; /* of the operand, of each image; where windows are padded, also before row 0 */
} mptl_conv_band;

mptl_conv_band mptl_conv_band_at(const mptl_conv *v, int i);

/* The first result of a line of a band. */
size_t mptl_conv_first_result(const mptl_conv *v, const mptl_conv_band *b, int line);

/* Adds a bias [out_c] to n results of forward, whole pixels. */
void mptl_conv_add_bias(const mptl_conv *v, float *y, const float *bias, size_t n);

/* Backward by weights (conv_weights.c), and by channel (conv_channels.c). */
size_t mptl_conv_weights_scratch_bytes(const mptl_conv *v, size_t operand_size);
size_t mptl_conv_channels_scratch_bytes(const mptl_conv *v, size_t operand_size);
void mptl_conv_channels_backward_weights(const mptl_conv *v, float *dweights, float *dbias,
                                         const mptl_source *x, const mptl_source *dy,
                                         void *scratch);

#endif
