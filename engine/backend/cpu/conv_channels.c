/* Backward by weights of depthwise convolutions (conv.h): a thread takes a block of output rows,
 * decodes what it reads, and computes the chains of all channels; then the blocks' chains are added
 * in order. */
#include <omp.h>
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "core/memory.h"

enum { BLOCKS_AT_ONCE = 8 }; /* whose chains are kept until they are added */

/* Lines of dy: of some images the first lines, their second lines, and so on; or some lines of one
 * image. */
typedef struct block {
  int image, images, line, lines; /* of each image */
  int row, rows;                  /* of x, of each image */
} block;

static int blocks_of_image(const mptl_conv *v) {
  return (v->out_h + v->block_lines - 1) / v->block_lines;
}
static int all_blocks(const mptl_conv *v) {
  return v->unit_images > 1 ? (v->s.n + v->unit_images - 1) / v->unit_images
                            : v->s.n * blocks_of_image(v);
}

static block block_at(const mptl_conv *v, int i) {
  if (v->unit_images > 1) {
    const int image = i * v->unit_images;
    return (block){image, mptl_conv_least(v->unit_images, v->s.n - image), 0, v->out_h, 0, v->h};
  }
  const int line = i % blocks_of_image(v) * v->block_lines,
            lines = mptl_conv_least(v->block_lines, v->out_h - line),
            row = mptl_conv_first_row(v, line);
  return (block){
      i / blocks_of_image(v), 1, line, lines, row, mptl_conv_end_row(v, line, lines) - row};
}

/* ---- Memory ---- */

static size_t weights(const mptl_conv *v) {
  return (size_t)v->s.kh * (size_t)v->s.kw * (size_t)v->out_c;
}
/* Numbers of a block's chains: of the weights, [ky][kx][channel], and of the bias. */
static size_t chain_floats(const mptl_conv *v) { return weights(v) + (size_t)v->out_c; }

static size_t x_floats(const mptl_conv *v) {
  const int rows = v->unit_images > 1
                       ? v->unit_images * v->h
                       : mptl_conv_least((v->block_lines - 1) * v->in_stride_y + v->reach, v->h);
  return (size_t)rows * mptl_conv_row_floats(v);
}
static size_t dy_floats(const mptl_conv *v) {
  const int lines = v->unit_images > 1 ? v->unit_images * v->out_h : v->block_lines;
  return (size_t)lines * (size_t)v->out_w * (size_t)v->out_c;
}
static size_t bytes(size_t floats) { return mptl_aligned(floats * sizeof(float)); }
static size_t thread_bytes(const mptl_conv *v) { return bytes(x_floats(v)) + bytes(dy_floats(v)); }

size_t mptl_conv_channels_scratch_bytes(const mptl_conv *v, size_t operand_size) {
  return bytes(chain_floats(v)) + bytes(BLOCKS_AT_ONCE * chain_floats(v)) +
         (operand_size < sizeof(float) ? (size_t)v->threads * thread_bytes(v) : 0);
}

/* ---- Chains ---- */

/* The chains of a block; x and dy: its rows and lines, image by image. */
static void compute_chains(const mptl_conv *v, const block *b, const float *x, const float *dy,
                           bool bias, float *chains) {
  const mptl_conv_shape *s = &v->s;
  const size_t c = (size_t)v->out_c, of_line = (size_t)v->out_w * c;
  memset(chains, 0, chain_floats(v) * sizeof *chains);
  for (int y = 0; y < b->lines; y++)
    for (int i = 0; i < b->images; i++) {
      const float *line = dy + ((size_t)i * (size_t)b->lines + (size_t)y) * of_line;
      const int first = (b->line + y) * v->in_stride_y - v->top; /* row of the window's first */
      for (int ky = 0; ky < s->kh; ky++) {
        const int row = first + ky * s->dh;
        if (row < 0 || row >= v->h) continue;
        const size_t at = (size_t)i * (size_t)b->rows + (size_t)(row - b->row);
        const mptl_channel_line l = {x + at * mptl_conv_row_floats(v),
                                     line,
                                     c,
                                     v->w,
                                     v->out_w,
                                     s->kw,
                                     v->in_stride_x,
                                     s->dw,
                                     v->left};
        v->kernels->channel_weights(chains + (size_t)(ky * s->kw) * c, &l);
      }
      for (size_t k = 0; bias && k < of_line; k += c)
        mptl_layers()->accumulate(chains + weights(v), line + k, c);
    }
}

static void compute_block(const mptl_conv *v, int i, const mptl_source *x, const mptl_source *dy,
                          bool bias, char *own, float *chains) {
  const block b = block_at(v, i);
  const size_t of_row = mptl_conv_row_floats(v), of_line = (size_t)v->out_w * (size_t)v->out_c;
  const float *rows = mptl_read(x, ((size_t)b.image * (size_t)v->h + (size_t)b.row) * of_row,
                                (size_t)b.images * (size_t)b.rows * of_row, (float *)own);
  const float *lines =
      mptl_read(dy, ((size_t)b.image * (size_t)v->out_h + (size_t)b.line) * of_line,
                (size_t)b.images * (size_t)b.lines * of_line, (float *)(own + bytes(x_floats(v))));
  compute_chains(v, &b, rows, lines, bias, chains);
}

/* From sums [ky][kx][channel] to [channel][ky][kx]. */
static void unpack(const mptl_conv *v, float *dweights, float *dbias, const float *sums) {
  const size_t c = (size_t)v->out_c, taps = (size_t)v->s.kh * (size_t)v->s.kw;
  for (size_t i = 0; i < c; i++)
    for (size_t t = 0; t < taps; t++) dweights[i * taps + t] = sums[t * c + i];
  if (dbias != NULL) memcpy(dbias, sums + weights(v), c * sizeof *dbias);
}

void mptl_conv_channels_backward_weights(const mptl_conv *v, float *dweights, float *dbias,
                                         const mptl_source *x, const mptl_source *dy,
                                         void *scratch) {
  const size_t n = chain_floats(v);
  float *sums = scratch, *chains = (float *)((char *)scratch + bytes(n));
  char *threads = (char *)chains + bytes(BLOCKS_AT_ONCE * n);
#pragma omp parallel num_threads(v->threads)
  {
    const size_t thread = (size_t)omp_get_thread_num(), all = (size_t)omp_get_num_threads();
    const size_t from = n * thread / all, end = n * (thread + 1) / all;
    char *own = threads + thread * thread_bytes(v);
    for (int first = 0; first < all_blocks(v); first += BLOCKS_AT_ONCE) {
      const int count = mptl_conv_least(BLOCKS_AT_ONCE, all_blocks(v) - first);
#pragma omp for schedule(dynamic)
      for (int i = 0; i < count; i++)
        compute_block(v, first + i, x, dy, dbias != NULL, own, chains + (size_t)i * n);
      if (first == 0) memcpy(sums + from, chains + from, (end - from) * sizeof *sums);
      for (int i = first == 0; i < count; i++)
        mptl_layers()->accumulate(sums + from, chains + (size_t)i * n + from, end - from);
#pragma omp barrier
    }
#pragma omp single
    unpack(v, dweights, dbias, sums);
  }
}
