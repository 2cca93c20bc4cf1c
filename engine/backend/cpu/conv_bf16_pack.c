/* Packs weights for passes in bf16 (conv_bf16.h): tiles of 16 columns, in blocks of terms. */
#include <string.h>

#include "backend/cpu/conv_bf16_plan.h"

enum {
  SIDE = MPTL_BF16_SIDE,
  TERMS = MPTL_BF16_TERMS,
  BLOCK = MPTL_BF16_BLOCK,
  TRANSPOSED = 256 /* weights of a column that are transposed at once, at most */
};

/* What is packed: a phase's weights of `columns` columns from `begin` on. Weights of channel i and
 * column j begin at from[i * channel_step + j * column_step]. */
typedef struct weights {
  const mptl_conv_phase *phase;
  const float *from;
  size_t channel_step, column_step, channels, columns, window;
} weights;

static weights weights_at(const mptl_conv *v, const mptl_conv_phase *p, size_t begin,
                          const float *all) {
  const size_t window = (size_t)v->s.kh * (size_t)v->s.kw, row = (size_t)v->s.ic * window,
               left = (size_t)v->columns - begin;
  weights w = {p, all, row, window, (size_t)v->group_in, left < SIDE ? left : SIDE, window};
  if (v->pass == MPTL_FORWARD) w.channel_step = window, w.column_step = row;
  w.from += begin * w.column_step;
  return w;
}

/* Pairs of channels, and so of terms. Some channels at a time are transposed: [channel][weight of
 * the window][column]. */
static void pack_pairs(const mptl_conv_bf16 *f, const weights *w, uint16_t *to, size_t of_part) {
  const mptl_bf16_kernels *kernels = f->kernels;
  float buffer[TRANSPOSED * SIDE];
  const size_t at_once = TRANSPOSED / w->window / 2 * 2, taps = (size_t)w->phase->taps;
  for (size_t from = 0, n; from < w->channels; from += n) {
    const float *first = w->from + from * w->channel_step;
    n = w->channels - from < at_once ? w->channels - from : at_once;
    if (w->channel_step == w->window)
      kernels->transpose(buffer, first, w->column_step, w->columns, n * w->window);
    else
      for (size_t i = 0; i < n; i++)
        kernels->transpose(buffer + i * w->window * SIDE, first + i * w->channel_step,
                           w->column_step, w->columns, w->window);
    for (size_t t = 0; t < taps; t++)
      for (size_t i = 0; i < n; i += 2) {
        const float *terms = buffer + (i * w->window + (size_t)w->phase->tap[t]) * SIDE;
        for (unsigned part = 0; part < f->column_parts; part++)
          kernels->join(to + (t * w->channels + from + i) * SIDE + part * of_part, terms,
                        terms + w->window * SIDE, part);
      }
  }
}

/* The same, a term at a time, for any number of channels. */
static void pack_terms(const mptl_conv_bf16 *f, const weights *w, uint16_t *to, size_t of_part) {
  const size_t taps = (size_t)w->phase->taps, terms = taps * w->channels;
  for (size_t k = 0; k < terms; k += 2) {
    float pair[2][SIDE] = {{0}};
    for (size_t i = k; i < k + 2 && i < terms; i++)
      for (size_t j = 0; j < w->columns; j++)
        pair[i - k][j] = w->from[i % w->channels * w->channel_step + j * w->column_step +
                                 (size_t)w->phase->tap[i / w->channels]];
    for (unsigned part = 0; part < f->column_parts; part++)
      f->kernels->join(to + k * SIDE + part * of_part, pair[0], pair[1], part);
  }
}

/* A tile of 16 columns of weights, [part][block][pair][column][2]; what is beyond is zero. */
static void pack_columns(const mptl_conv_bf16 *f, const weights *w, size_t blocks, uint16_t *to) {
  const size_t terms = (size_t)w->phase->taps * w->channels, of_part = blocks * BLOCK;
  for (unsigned part = 0; part < f->column_parts; part++)
    memset(to + part * of_part + terms * SIDE, 0, (of_part - terms * SIDE) * sizeof *to);
  if (w->channels % 2 == 0 && w->window <= TRANSPOSED / 2)
    pack_pairs(f, w, to, of_part);
  else
    pack_terms(f, w, to, of_part);
}

void mptl_conv_bf16_pack(const mptl_conv_bf16 *f, uint16_t *packed, const float *theta) {
  for (int k = 0; k < f->v.n_phases; k++) {
    const mptl_conv_blocks *b = &f->blocks[k];
#pragma omp parallel for num_threads(f->v.threads) schedule(static)
    for (size_t i = 0; i < mptl_conv_column_tiles(f); i++) {
      const weights w = weights_at(&f->v, &f->v.phases[k], i * SIDE, theta);
      pack_columns(f, &w, b->n, packed + b->packed + i * b->n * f->column_parts * BLOCK);
    }
  }
}
