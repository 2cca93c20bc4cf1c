/* For conv.c: what a pass of a convolution knows before it runs: which places of its operand its
 * results read, in which order, and how results are cut into pieces. */
#ifndef MPTL_BACKEND_CPU_CONV_PLAN_H
#define MPTL_BACKEND_CPU_CONV_PLAN_H

#include "backend/cpu/conv.h"
#include "kernels/cpu/products.h"

/* A set of the results' pixels that all have the same taps: of a forward pass all pixels; of a
 * backward pass by data those with the same remainder by the strides. Its taps are the weights of
 * the window that reach a pixel, in the order of their places in the operand. */
typedef struct mptl_conv_phase {
  int y0, x0, rows, columns; /* its first result pixel, how many rows and columns of them */
  size_t *span;              /* places of the first pixel's spans in the operand */
  size_t spans, length;
  int *tap; /* [spans * taps in a span] index ky * kw + kx */
  int taps;
  size_t packed; /* place of its weights among the packed ones */
} mptl_conv_phase;

struct mptl_conv {
  mptl_conv_shape s;
  mptl_pass pass;
  int threads;
  const mptl_product_kernels *kernels;
  /* The operand that is read in windows, with its borders of zeros: [n][h][w][c]. */
  int h, w, c, top, left;
  int in_h, in_w;        /* without borders */
  bool copies;           /* there are borders */
  int group_in, columns; /* of a group of channels: the operand's, the results' */
  int in_stride_y,
      in_stride_x; /* between result pixels that follow each other, in operand pixels */
  int out_stride_y, out_stride_x, out_h, out_w, out_c; /* of results */
  int n_phases;
  mptl_conv_phase *phases;
  size_t packed_floats;
  size_t piece_floats; /* of a panel's piece in the first-level cache */

  /* Backward by weights: images that are prepared together, output rows of a block, and places of
   * the rows' first pixels in the operand [images * out_h]. */
  int images, block_rows;
  size_t *lines;
};

/* Fills in a zeroed record whose shape, pass, threads and kernels are set. mptl_conv_release frees
 * what it allocated, also after an error. */
mptl_status mptl_conv_plan(mptl_conv *conv);
void mptl_conv_release(mptl_conv *conv);

static inline size_t mptl_conv_place(const mptl_conv *v, int y, int x) {
  return ((size_t)y * (size_t)v->w + (size_t)x) * (size_t)v->c;
}

/* Columns of a group in vectors, cut into panels of about the same number of them. */
static inline int mptl_conv_vectors(const mptl_conv *v) {
  return (v->columns + (int)v->kernels->lanes - 1) / (int)v->kernels->lanes;
}
static inline int mptl_conv_panels(const mptl_conv *v) {
  return (mptl_conv_vectors(v) + (int)v->kernels->vectors - 1) / (int)v->kernels->vectors;
}

/* Of an image, with its borders. */
static inline size_t mptl_conv_operand_floats(const mptl_conv *v) {
  return (size_t)v->h * (size_t)v->w * (size_t)v->c;
}
static inline size_t mptl_conv_result_pixels(const mptl_conv *v) {
  return (size_t)v->out_h * (size_t)v->out_w;
}
static inline size_t mptl_conv_weight_rows(const mptl_conv *v) {
  return (size_t)v->s.kh * (size_t)v->s.kw * (size_t)v->group_in;
}
static inline size_t mptl_conv_padded_columns(const mptl_conv *v) {
  return (size_t)mptl_conv_vectors(v) * v->kernels->lanes;
}

/* A panel of a group of channels: its first column in the group, its width of whole vectors, how
 * many of its columns are channels, and how many columns are in front of it in all groups. */
typedef struct mptl_conv_panel {
  size_t begin, width, columns, place;
  unsigned vectors;
} mptl_conv_panel;

static inline mptl_conv_panel mptl_conv_panel_at(const mptl_conv *v, int group, int panel) {
  const size_t lanes = v->kernels->lanes, vectors = (size_t)mptl_conv_vectors(v),
               n = (size_t)mptl_conv_panels(v), first = vectors * (size_t)panel / n,
               end = vectors * ((size_t)panel + 1) / n;
  mptl_conv_panel p = {.begin = first * lanes, .width = (end - first) * lanes};
  const size_t left = (size_t)v->columns - p.begin;
  p.columns = left < p.width ? left : p.width;
  p.place = (size_t)group * mptl_conv_padded_columns(v) + p.begin;
  p.vectors = (unsigned)(end - first);
  return p;
}

#endif
