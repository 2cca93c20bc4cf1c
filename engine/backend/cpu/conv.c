#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "core/memory.h"

enum {
  PACKED_CHANNELS = 16, /* that are packed at a time */
  CHUNK_PIXELS = 96,    /* that a thread takes at a time: they stay in the cache between panels */
  MOST_WIDTH = 64,      /* columns of a panel, with any instruction set */
};

mptl_status mptl_conv_create(mptl_conv **conv, int threads, const mptl_conv_shape *shape,
                             mptl_pass pass) {
  MPTL_TRY(mptl_conv_check(shape));
  mptl_conv *v = calloc(1, sizeof *v);
  if (v == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  *v = (mptl_conv){.s = *shape, .pass = pass, .threads = threads, .kernels = mptl_products()};
  mptl_status status = mptl_conv_plan(v);
  if (status != MPTL_OK) {
    mptl_conv_destroy(v);
    return status;
  }
  *conv = v;
  return MPTL_OK;
}

void mptl_conv_destroy(mptl_conv *v) {
  if (v == NULL) return;
  mptl_conv_release(v);
  free(v);
}

/* ---- Memory ---- */

static size_t copy_bytes(const mptl_conv *v) {
  size_t images = (size_t)(v->pass == MPTL_BACKWARD_WEIGHTS ? v->images : v->s.n);
  return v->copies ? mptl_aligned(images * mptl_conv_operand_floats(v) * sizeof(float)) : 0;
}

/* Backward by weights: the panels of a group's dy, and the sums. */
static size_t panels_bytes(const mptl_conv *v) {
  return mptl_aligned((size_t)v->s.groups * mptl_conv_padded_columns(v) *
                      mptl_conv_result_pixels(v) * (size_t)v->images * sizeof(float));
}
static size_t sums_bytes(const mptl_conv *v) {
  return mptl_aligned((size_t)v->s.groups * mptl_conv_weight_rows(v) * mptl_conv_padded_columns(v) *
                      sizeof(float));
}

size_t mptl_conv_packed_bytes(const mptl_conv *v) {
  return mptl_aligned(v->packed_floats * sizeof(float));
}

size_t mptl_conv_scratch_bytes(const mptl_conv *v) {
  size_t bytes = copy_bytes(v);
  if (v->pass == MPTL_BACKWARD_WEIGHTS) bytes += panels_bytes(v) + sums_bytes(v);
  return bytes;
}

/* ---- Packing ---- */

/* The place of a phase's panel among the packed weights. */
static size_t packed_place(const mptl_conv *v, const mptl_conv_phase *p,
                           const mptl_conv_panel *panel) {
  return p->packed + panel->place * (size_t)p->taps * (size_t)v->group_in;
}

/* A panel of weights, [tap][channel][column]: by blocks of channels, so that reads and writes stay
 * in the cache. */
static void pack_panel(const mptl_conv *v, const mptl_conv_phase *p, int group,
                       const mptl_conv_panel *panel, float *to, const float *weights) {
  const mptl_conv_shape *s = &v->s;
  const bool forward = v->pass == MPTL_FORWARD;
  const size_t icg = (size_t)(s->ic / s->groups), ocg = (size_t)(s->oc / s->groups);
  const size_t window = (size_t)s->kh * (size_t)s->kw, channels = (size_t)v->group_in;
  for (size_t from = 0; from < channels; from += PACKED_CHANNELS) {
    size_t end = from + PACKED_CHANNELS < channels ? from + PACKED_CHANNELS : channels;
    for (size_t j = 0; j < panel->columns; j++)
      for (size_t i = from; i < end; i++) {
        size_t column = panel->begin + j, oc = (size_t)group * ocg + (forward ? column : i);
        const float *w = weights + (oc * icg + (forward ? i : column)) * window;
        for (size_t t = 0; t < (size_t)p->taps; t++)
          to[(t * channels + i) * panel->width + j] = w[p->tap[t]];
      }
  }
  for (size_t r = 0; r < (size_t)p->taps * channels; r++)
    memset(to + r * panel->width + panel->columns, 0, (panel->width - panel->columns) * sizeof *to);
}

void mptl_conv_pack(const mptl_conv *v, float *packed, const float *weights) {
  const int panels = mptl_conv_panels(v);
  for (int k = 0; k < v->n_phases; k++) {
    const mptl_conv_phase *p = &v->phases[k];
#pragma omp parallel for collapse(2) num_threads(v->threads) schedule(static)
    for (int g = 0; g < v->s.groups; g++)
      for (int i = 0; i < panels; i++) {
        const mptl_conv_panel panel = mptl_conv_panel_at(v, g, i);
        pack_panel(v, p, g, &panel, packed + packed_place(v, p, &panel), weights);
      }
  }
}

/* Copies images into the middle of zeros. Called by all threads of a parallel region. */
static void copy_operand(const mptl_conv *v, float *copy, const float *x, int images) {
  const size_t row = (size_t)v->w * (size_t)v->c, inner = (size_t)v->in_w * (size_t)v->c,
               left = (size_t)v->left * (size_t)v->c;
#pragma omp for schedule(static)
  for (int i = 0; i < images * v->h; i++) {
    int image = i / v->h, y = i % v->h - v->top;
    float *to = copy + (size_t)i * row;
    if (y < 0 || y >= v->in_h) {
      memset(to, 0, row * sizeof *to);
      continue;
    }
    memset(to, 0, left * sizeof *to);
    memcpy(to + left, x + ((size_t)image * (size_t)v->in_h + (size_t)y) * inner,
           inner * sizeof *to);
    memset(to + left + inner, 0, (row - left - inner) * sizeof *to);
  }
}

/* ---- Forward, backward by data ---- */

/* Places of pixels [at, at + n) of a phase in the operand and among the results. */
static void find_places(const mptl_conv *v, const mptl_conv_phase *p, size_t at, unsigned n,
                        size_t *row, size_t *to) {
  size_t x = at % (size_t)p->columns, line = at / (size_t)p->columns;
  size_t y = line % (size_t)p->rows, image = line / (size_t)p->rows;
  for (unsigned i = 0; i < n; i++) {
    row[i] = image * mptl_conv_operand_floats(v) +
             mptl_conv_place(v, (int)y * v->in_stride_y, (int)x * v->in_stride_x);
    size_t out_y = (size_t)p->y0 + y * (size_t)v->out_stride_y,
           out_x = (size_t)p->x0 + x * (size_t)v->out_stride_x;
    to[i] = ((image * (size_t)v->out_h + out_y) * (size_t)v->out_w + out_x) * (size_t)v->out_c;
    if (++x < (size_t)p->columns) continue;
    x = 0;
    if (++y < (size_t)p->rows) continue;
    y = 0, image++;
  }
}

/* A panel's results of some pixels, at most a full tile's, into results, the group's. A panel may
 * have more columns than there are channels. */
static void compute_tile(const mptl_conv *v, const mptl_chain *chain, const mptl_conv_panel *panel,
                         float *results, const size_t *row, const size_t *to, unsigned pixels,
                         mptl_chain_end end) {
  float buffer[MPTL_PRODUCT_ROWS * MOST_WIDTH];
  size_t own[MPTL_PRODUCT_ROWS];
  const size_t bytes = panel->columns * sizeof *buffer;
  results += panel->begin;
  if (panel->columns == panel->width) {
    v->kernels->tile(results, to, chain, row, pixels, panel->vectors, end);
    return;
  }
  for (unsigned r = 0; r < pixels; r++) {
    own[r] = r * MOST_WIDTH;
    if (end == MPTL_CHAIN_CONTINUE) memcpy(buffer + own[r], results + to[r], bytes);
  }
  v->kernels->tile(buffer, own, chain, row, pixels, panel->vectors, end);
  for (unsigned r = 0; r < pixels; r++) memcpy(results + to[r], buffer + own[r], bytes);
}

/* A piece of a phase's spans that stays in the first-level cache while all pixels of a chunk meet
 * it: whole spans, or a part of one. */
typedef struct piece {
  size_t span, spans, from, length;
} piece;

/* The first piece has span = from = 0; of no spans it is empty. Returns false after the last. */
static bool next_piece(const mptl_conv_phase *p, size_t most, piece *at) {
  at->from += at->length;
  if (at->from >= p->length) at->span += at->spans, at->from = 0;
  at->length = p->length - at->from < most ? p->length - at->from : most;
  at->spans =
      at->length == p->length && p->length > 0 && most / p->length > 1 ? most / p->length : 1;
  if (at->spans > p->spans - at->span) at->spans = p->spans - at->span;
  return at->spans > 0;
}

/* Results of n pixels from `at` on. */
static void compute_chunk(const mptl_conv *v, const mptl_conv_phase *p, int group, float *results,
                          const float *x, const float *packed, size_t at, size_t n) {
  size_t row[CHUNK_PIXELS], to[CHUNK_PIXELS];
  const int panels = mptl_conv_panels(v);
  const size_t most = v->kernels->rows;
  find_places(v, p, at, (unsigned)n, row, to);
  results += (size_t)group * (size_t)v->columns;
  x += (size_t)group * (size_t)v->group_in;
  for (int i = 0; i < panels; i++) {
    const mptl_conv_panel panel = mptl_conv_panel_at(v, group, i);
    const float *b = packed + packed_place(v, p, &panel);
    mptl_chain_end end = MPTL_CHAIN_STORE;
    piece part = {0};
    while (next_piece(p, v->piece_floats / panel.width, &part) ||
           end == MPTL_CHAIN_STORE) { /* without taps: zeros */
      const mptl_chain chain = {x + part.from, p->span + part.span, part.spans, part.length, 1, b};
      for (size_t j = 0; j < n; j += most)
        compute_tile(v, &chain, &panel, results, row + j, to + j,
                     (unsigned)(n - j < most ? n - j : most), end);
      b += part.spans * part.length * panel.width;
      end = MPTL_CHAIN_CONTINUE;
    }
  }
}

static void add_bias(const mptl_conv *v, float *y, const float *bias, size_t at, size_t n) {
  for (size_t i = at; i < at + n; i++)
    for (int c = 0; c < v->out_c; c++) y[i * (size_t)v->out_c + (size_t)c] += bias[c];
}

static void compute(const mptl_conv *v, float *results, const float *x, const float *packed,
                    const float *bias, float *copy) {
  const float *operand = v->copies ? copy : x;
  const size_t most = CHUNK_PIXELS / v->kernels->rows * v->kernels->rows;
#pragma omp parallel num_threads(v->threads)
  {
    if (v->copies) copy_operand(v, copy, x, v->s.n);
    for (int k = 0; k < v->n_phases; k++) {
      const mptl_conv_phase *p = &v->phases[k];
      size_t pixels = (size_t)p->rows * (size_t)p->columns * (size_t)v->s.n;
#pragma omp for schedule(dynamic) nowait
      for (size_t at = 0; at < pixels; at += most) {
        size_t n = pixels - at < most ? pixels - at : most;
        for (int g = 0; g < v->s.groups; g++)
          compute_chunk(v, p, g, results, operand, packed, at, n);
        if (bias != NULL)
          add_bias(v, results, bias, at, n); /* forward: one phase, whose pixels are in order */
      }
    }
  }
}

void mptl_conv_forward(const mptl_conv *v, float *y, const float *x, const float *packed,
                       const float *bias, void *scratch) {
  compute(v, y, x, packed, bias, scratch);
}

void mptl_conv_backward_data(const mptl_conv *v, float *dx, const float *dy, const float *packed,
                             void *scratch) {
  compute(v, dx, dy, packed, NULL, scratch);
}

/* ---- Backward by weights ---- */

/* dy of a group of images, in panels [group of channels][panel][pixel][column]. */
static void pack_panels(const mptl_conv *v, float *panels, const float *dy, size_t pixels) {
  const int n = mptl_conv_panels(v);
#pragma omp for collapse(2) schedule(static)
  for (int g = 0; g < v->s.groups; g++)
    for (int i = 0; i < n; i++) {
      const mptl_conv_panel panel = mptl_conv_panel_at(v, g, i);
      const float *from = dy + (size_t)g * (size_t)v->columns + panel.begin;
      float *to = panels + panel.place * pixels;
      for (size_t k = 0; k < pixels; k++, from += v->out_c, to += panel.width) {
        memcpy(to, from, panel.columns * sizeof *to);
        memset(to + panel.columns, 0, (panel.width - panel.columns) * sizeof *to);
      }
    }
}

/* The chains of a block of output rows for one tile, stored in or added to its sums. */
static void add_tile(const mptl_conv *v, float *sums, int group, size_t tile,
                     const mptl_conv_panel *panel, const mptl_chain *chain, bool add) {
  const size_t rows = mptl_conv_weight_rows(v), most = v->kernels->rows;
  size_t row[MPTL_PRODUCT_ROWS], to[MPTL_PRODUCT_ROWS];
  unsigned n = 0;
  for (size_t r = tile * most; r < rows && n < most; r++, n++) {
    int tap = (int)(r / (size_t)v->group_in);
    row[n] = mptl_conv_place(v, tap / v->s.kw * v->s.dh, tap % v->s.kw * v->s.dw) +
             (size_t)(group * v->group_in) + r % (size_t)v->group_in;
    to[n] = r * panel->width;
  }
  v->kernels->tile(sums + panel->place * rows, to, chain, row, n, panel->vectors,
                   add ? MPTL_CHAIN_ADD : MPTL_CHAIN_STORE);
}

/* Adds the chains of some images to sums [group of channels][panel][row][column], block by block,
 * so that a block's operands stay in the cache; each thread its own tiles. */
static void add_chains(const mptl_conv *v, float *sums, const float *x, const float *panels,
                       int images, bool first) {
  const size_t most = v->kernels->rows, tiles = (mptl_conv_weight_rows(v) + most - 1) / most;
  const size_t n_panels = (size_t)mptl_conv_panels(v), all = (size_t)v->s.groups * n_panels * tiles;
  const size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
  const size_t n_lines = (size_t)images * (size_t)v->out_h, block = (size_t)v->block_rows;
  const size_t ow = (size_t)v->out_w;
  for (size_t line = 0; line < n_lines; line += block)
    for (size_t i = all * thread / threads; i < all * (thread + 1) / threads; i++) {
      const int group = (int)(i / tiles / n_panels);
      const mptl_conv_panel panel = mptl_conv_panel_at(v, group, (int)(i / tiles % n_panels));
      const mptl_chain chain = {.a = x,
                                .span = v->lines + line,
                                .spans = n_lines - line < block ? n_lines - line : block,
                                .length = ow,
                                .stride = (size_t)v->in_stride_x * (size_t)v->c,
                                .b = panels + (panel.place * n_lines + line * panel.width) * ow};
      add_tile(v, sums, group, i % tiles, &panel, &chain, !first || line > 0);
    }
#pragma omp barrier
}

/* From sums to [oc][ic / groups][kh][kw]. */
static void unpack_sums(const mptl_conv *v, float *dweights, const float *sums) {
  const int n = mptl_conv_panels(v);
  const size_t rows = mptl_conv_weight_rows(v), icg = (size_t)v->group_in, window = rows / icg;
#pragma omp for collapse(2) schedule(static)
  for (int g = 0; g < v->s.groups; g++)
    for (int i = 0; i < n; i++) {
      const mptl_conv_panel panel = mptl_conv_panel_at(v, g, i);
      const float *from = sums + panel.place * rows;
      float *to = dweights + ((size_t)g * (size_t)v->columns + panel.begin) * rows;
      for (size_t j = 0; j < panel.columns; j++, to += rows)
        for (size_t r = 0; r < rows; r++)
          to[r % icg * window + r / icg] = from[r * panel.width + j];
    }
}

/* Adds the blocks' sums of dy by channel: a chain of additions for each. */
static void add_bias_sums(const mptl_conv *v, float *dbias, const float *dy, size_t pixels,
                          bool first) {
  const size_t block = (size_t)v->block_rows * (size_t)v->out_w, channels = (size_t)v->out_c;
#pragma omp for schedule(static)
  for (size_t from = 0; from < channels; from += 16) {
    size_t n = channels - from < 16 ? channels - from : 16;
    for (size_t at = 0; at < pixels; at += block) {
      float sum[16] = {0};
      for (size_t i = at; i < at + block && i < pixels; i++)
        for (size_t c = 0; c < n; c++) sum[c] += dy[i * channels + from + c];
      for (size_t c = 0; c < n; c++)
        dbias[from + c] = first && at == 0 ? sum[c] : dbias[from + c] + sum[c];
    }
  }
}

void mptl_conv_backward_weights(const mptl_conv *v, float *dweights, float *dbias, const float *x,
                                const float *dy, void *scratch) {
  float *copy = scratch, *panels = (float *)((char *)scratch + copy_bytes(v));
  float *sums = (float *)((char *)panels + panels_bytes(v));
  const size_t inner = (size_t)v->in_h * (size_t)v->in_w * (size_t)v->c;
#pragma omp parallel num_threads(v->threads)
  {
    for (int at = 0; at < v->s.n; at += v->images) {
      int images = v->s.n - at < v->images ? v->s.n - at : v->images;
      const float *here = x + (size_t)at * inner,
                  *gradient = dy + (size_t)at * mptl_conv_result_pixels(v) * (size_t)v->out_c;
      size_t pixels = mptl_conv_result_pixels(v) * (size_t)images;
      if (v->copies) copy_operand(v, copy, here, images);
      pack_panels(v, panels, gradient, pixels);
      if (dbias != NULL) add_bias_sums(v, dbias, gradient, pixels, at == 0);
      add_chains(v, sums, v->copies ? copy : here, panels, images, at == 0);
    }
    unpack_sums(v, dweights, sums);
  }
}
