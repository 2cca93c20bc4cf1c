#include "backend/cpu/conv.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "core/memory.h"

enum {
  PACKED_AT_ONCE = 16, /* channels: they stay in the cache */
  MOST_PIXELS = 192    /* of a phase that meet a panel's piece one after another */
};

/* Backward by weights: where each pixel of dy meets one pixel of x, both may change places, and the
 * sums are the same. The one with more channels fills vectors better, and its pixels are side by
 * side in a panel, while a tile reads the other one's numbers one by one, where they are. */
static void swap_operands(mptl_conv *v) {
  mptl_conv_shape *s = &v->s;
  v->swapped = s->kh == 1 && s->kw == 1 && s->sh == 1 && s->sw == 1 && s->ph == 0 && s->pw == 0 &&
               s->groups == 1 && !s->bias && s->ic > s->oc;
  if (!v->swapped) return;
  const int ic = s->ic;
  s->ic = s->oc, s->oc = ic;
}

mptl_status mptl_conv_create(mptl_conv **conv, int threads, const mptl_conv_shape *shape,
                             mptl_pass pass) {
  MPTL_TRY(mptl_conv_check(shape));
  mptl_conv *v = calloc(1, sizeof *v);
  if (v == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  *v = (mptl_conv){.s = *shape, .pass = pass, .threads = threads, .kernels = mptl_products()};
  if (pass == MPTL_BACKWARD_WEIGHTS) swap_operands(v);
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

/* Elements of the results in a line, with the rows of all phases. */
static size_t line_results(const mptl_conv *v) {
  return (size_t)v->out_stride_y * (size_t)v->out_w * (size_t)v->out_c;
}

/* Of each thread: a band's operand, a chunk's results, unless they are read and stored in place. */
static size_t operand_bytes(const mptl_conv *v, size_t operand_size) {
  const size_t floats = (size_t)v->band_rows * mptl_conv_row_floats(v);
  return operand_size == sizeof(float) ? 0 : mptl_aligned(floats * sizeof(float));
}
static size_t results_bytes(const mptl_conv *v, const mptl_sink *results) {
  const size_t floats = (size_t)v->chunk_lines * line_results(v);
  return mptl_stores_floats(results) ? 0 : mptl_aligned(floats * sizeof(float));
}

size_t mptl_conv_packed_bytes(const mptl_conv *v) {
  return mptl_aligned(v->packed_floats * sizeof(float));
}

size_t mptl_conv_scratch_bytes(const mptl_conv *v, size_t operand_size, const mptl_sink *results) {
  if (v->pass == MPTL_BACKWARD_WEIGHTS) return mptl_conv_weights_scratch_bytes(v, operand_size);
  return (size_t)v->threads * (operand_bytes(v, operand_size) + results_bytes(v, results));
}

/* ---- Packing ---- */

/* The place of a phase's panel among the packed weights. */
static size_t packed_place(const mptl_conv *v, const mptl_conv_phase *p,
                           const mptl_conv_panel *panel) {
  return p->packed + panel->place * (size_t)p->taps * (size_t)v->group_in;
}

/* A panel of weights, [tap][channel][column]. Loops read weights in their order in memory; of
 * forward some channels at a time, so that what is written stays in the cache. */
static void pack_panel(const mptl_conv *v, const mptl_conv_phase *p, int group,
                       const mptl_conv_panel *panel, float *to, const float *weights) {
  const mptl_conv_shape *s = &v->s;
  const size_t icg = (size_t)(s->ic / s->groups), ocg = (size_t)(s->oc / s->groups);
  const size_t window = (size_t)s->kh * (size_t)s->kw, channels = (size_t)v->group_in;
  const size_t taps = (size_t)p->taps, row = panel->width, columns = panel->columns;
  weights += (size_t)group * ocg * icg * window;
  if (v->pass == MPTL_FORWARD) {
    for (size_t from = 0; from < channels; from += PACKED_AT_ONCE)
      for (size_t j = 0; j < columns; j++)
        for (size_t i = from; i < channels && i < from + PACKED_AT_ONCE; i++)
          for (size_t t = 0; t < taps; t++)
            to[(t * channels + i) * row + j] =
                weights[((panel->begin + j) * icg + i) * window + (size_t)p->tap[t]];
  } else {
    for (size_t i = 0; i < channels; i++)
      for (size_t t = 0; t < taps; t++)
        for (size_t j = 0; j < columns; j++)
          to[(t * channels + i) * row + j] =
              weights[(i * icg + panel->begin + j) * window + (size_t)p->tap[t]];
  }
  for (size_t r = 0; r < taps * channels; r++)
    memset(to + r * row + columns, 0, (row - columns) * sizeof *to);
}

void mptl_conv_pack(const mptl_conv *v, float *packed, const float *weights) {
  const int panels = mptl_conv_panels(v);
  for (int k = 0; k < v->n_phases; k++) {
    const mptl_conv_phase *p = &v->phases[k];
#pragma omp parallel for collapse(2) num_threads(v->threads) schedule(static)
    for (int g = 0; g < v->groups; g++)
      for (int i = 0; i < panels; i++) {
        const mptl_conv_panel panel = mptl_conv_panel_at(v, g, i);
        pack_panel(v, p, g, &panel, packed + packed_place(v, p, &panel), weights);
      }
  }
}

/* ---- Operands ---- */

/* The band's rows of the operand. */
static const float *band_operand(const mptl_conv *v, const mptl_conv_band *b,
                                 const mptl_source *operand, float *buffer) {
  const size_t row = mptl_conv_row_floats(v), n = (size_t)b->images * (size_t)b->rows * row;
  return mptl_read(operand, ((size_t)b->image * (size_t)v->h + (size_t)b->row) * row, n, buffer);
}

/* ---- Forward, backward by data ---- */

/* A pass that runs. */
typedef struct run {
  const mptl_conv *v;
  const mptl_source *operand;
  const mptl_sink *results;
  const float *packed, *bias;
} run;

/* The rows of the windows of row y of a phase that are rows of the operand. */
static mptl_conv_range rows_inside(const mptl_conv *v, const mptl_conv_phase *p, int y) {
  return mptl_conv_inside(p->at_y, p->window_rows, y * v->in_stride_y - v->top, v->h);
}

/* Pixels whose windows have the same rows and columns inside, of lines [begin, end) of a band: the
 * next ones are in line `line` from column x on. */
typedef struct pixels {
  const mptl_conv_phase *phase;
  const mptl_conv_kind *kind;
  const mptl_conv_band *band;
  mptl_conv_range rows;
  int begin, end, line, x;
} pixels;

/* Places of the next pixels, at most `most`, in the band's operand, and among the results of the
 * lines. A place in the operand is where the window begins, perhaps outside of it: numbers wrap
 * around. Returns how many. */
static unsigned find_places(const mptl_conv *v, pixels *at, unsigned most, size_t *row,
                            size_t *to) {
  const mptl_conv_phase *p = at->phase;
  const mptl_conv_band *b = at->band;
  const size_t base = mptl_conv_first_result(v, b, at->begin);
  unsigned n = 0;
  while (n < most && at->line < at->end) {
    const int line = b->line + at->line, y = line % v->lines;
    const bool here = y < p->rows && mptl_conv_same(rows_inside(v, p, y), at->rows);
    const int end = here ? at->kind->end : at->x;
    const size_t from = (size_t)(line / v->lines * b->rows + y * v->in_stride_y - v->top - b->row) *
                            mptl_conv_row_floats(v) -
                        (size_t)v->left * (size_t)v->c;
    const size_t result = mptl_conv_first_result(v, b, at->line) - base +
                          ((size_t)p->y0 * (size_t)v->out_w + (size_t)p->x0) * (size_t)v->out_c;
    const unsigned left = (unsigned)(end - at->x), more = left < most - n ? left : most - n;
    const size_t by = (size_t)v->in_stride_x * (size_t)v->c,
                 by_result = (size_t)v->out_stride_x * (size_t)v->out_c;
    size_t next = from + (size_t)at->x * by, next_result = result + (size_t)at->x * by_result;
    for (const unsigned stop = n + more; n < stop; n++, next += by, next_result += by_result)
      row[n] = next, to[n] = next_result;
    at->x += (int)more;
    if (at->x == end) at->x = at->kind->x, at->line++;
  }
  return n;
}

/* A piece of spans that stays in a cache while all pixels of a chunk meet it: whole spans, or a
 * part of one. */
typedef struct piece {
  size_t span, spans, from, length;
} piece;

/* Moves to the next piece of spans up to `end`, of at most `most` terms. The first one is made from
 * {span = the first span}. Returns false after the last one. */
static bool next_piece(piece *at, size_t length, size_t end, size_t most) {
  at->from += at->length;
  if (at->from >= length) at->span += at->spans, at->from = 0;
  at->length = length - at->from < most ? length - at->from : most;
  at->spans = at->length == length && length > 0 && most / length > 1 ? most / length : 1;
  if (at->spans > end - at->span) at->spans = end - at->span;
  return at->spans > 0;
}

/* Places of n pixels (find_places). */
typedef struct places {
  size_t row[MOST_PIXELS], to[MOST_PIXELS];
  unsigned n;
} places;

/* The results of some pixels of a group of channels, over spans [from, end). */
static void compute_pixels(const mptl_conv *v, const pixels *set, const places *at, size_t from,
                           size_t end, int group, float *results, const float *x,
                           const float *packed) {
  const mptl_conv_kind *kind = set->kind;
  const int panels = mptl_conv_panels(v);
  results += (size_t)group * (size_t)v->columns;
  x += (size_t)group * (size_t)v->group_in;
  for (int i = 0; i < panels; i++) {
    const mptl_conv_panel panel = mptl_conv_panel_at(v, group, i);
    const float *weights = packed + packed_place(v, set->phase, &panel);
    mptl_chain_end how = MPTL_CHAIN_STORE;
    piece part = {.span = from};
    while (next_piece(&part, kind->length, end, v->piece_floats / panel.width) ||
           how == MPTL_CHAIN_STORE) { /* without taps: zeros */
      const mptl_chain chain = {.a = x + part.from,
                                .span = kind->span + part.span,
                                .term = kind->term + part.span,
                                .spans = part.spans,
                                .length = part.length,
                                .stride = 1,
                                .b = weights + part.from * panel.width,
                                .fetch_next = set->phase->taps == 1 && i == 0};
      v->kernels->tile(results + panel.begin, at->to, &chain, at->row, at->n, panel.columns, how);
      how = MPTL_CHAIN_CONTINUE;
    }
  }
}

static void compute_channels(const mptl_conv *v, const pixels *set, const places *at, size_t from,
                             size_t end, float *results, const float *x, const float *packed) {
  const size_t channels = (size_t)v->out_c;
  const mptl_chain chain = {.a = x,
                            .span = set->kind->span + from,
                            .term = set->kind->term + from,
                            .spans = end - from,
                            .length = 1,
                            .b = packed + set->phase->packed,
                            .step = channels};
  v->kernels->channel_tile(results, at->to, &chain, at->row, at->n, channels);
}

/* Results of all pixels of a set. */
static void compute_set(const run *r, pixels set, float *results, const float *x) {
  const mptl_conv *v = r->v;
  const size_t from = (size_t)set.rows.from * set.kind->spans_of_row,
               end = (size_t)set.rows.end * set.kind->spans_of_row;
  places at;
  while ((at.n = find_places(v, &set, MOST_PIXELS, at.row, at.to)) > 0) {
    if (v->by_channel) compute_channels(v, &set, &at, from, end, results, x, r->packed);
    for (int g = 0; g < v->groups && !v->by_channel; g++)
      compute_pixels(v, &set, &at, from, end, g, results, x, r->packed);
  }
}

/* Results of a phase's pixels in lines [begin, end) of a band. */
static void compute_phase(const run *r, const mptl_conv_phase *p, const mptl_conv_band *b,
                          int begin, int end, float *results, const float *x) {
  const mptl_conv *v = r->v;
  const int images = (b->line + end - 1) / v->lines - (b->line + begin) / v->lines;
  int first = (b->line + begin) % v->lines, last = (b->line + end - 1) % v->lines;
  if (images > 0) first = 0, last = v->lines - 1;
  last = mptl_conv_least(last, p->rows - 1);
  for (int y = first; y <= last; y++) {
    const mptl_conv_range rows = rows_inside(v, p, y);
    if (y > first && mptl_conv_same(rows, rows_inside(v, p, y - 1))) continue;
    for (int k = 0; k < p->kinds; k++) {
      const mptl_conv_kind *kind = &p->kind[k];
      compute_set(r, (pixels){p, kind, b, rows, begin, end, begin, kind->x}, results, x);
    }
  }
}

static void compute_band(const run *r, const mptl_conv_band *b, float *operand, float *buffer,
                         mptl_round_stats *stats) {
  const mptl_conv *v = r->v;
  const float *x = band_operand(v, b, r->operand, operand);
  for (int begin = 0; begin < b->lines; begin += v->chunk_lines) {
    const int end = mptl_conv_least(begin + v->chunk_lines, b->lines);
    const size_t first = mptl_conv_first_result(v, b, begin),
                 n = mptl_conv_first_result(v, b, end) - first;
    float *results = mptl_stores_floats(r->results) ? (float *)r->results->data + first : buffer;
    for (int k = 0; k < v->n_phases; k++)
      compute_phase(r, &v->phases[k], b, begin, end, results, x);
    if (r->bias != NULL) mptl_conv_add_bias(v, results, r->bias, n);
    for (size_t i = 0; i < n; i += MPTL_TILE)
      mptl_write(r->results, first + i, n - i < MPTL_TILE ? n - i : MPTL_TILE, results + i, stats);
  }
}

static void compute(const run *r, char *scratch) {
  const mptl_conv *v = r->v;
  const size_t of_operand = operand_bytes(v, r->operand->size),
               bytes = of_operand + results_bytes(v, r->results);
#pragma omp parallel num_threads(v->threads)
  {
    char *own = scratch + (size_t)omp_get_thread_num() * bytes;
    mptl_round_stats stats = {0};
#pragma omp for schedule(dynamic) nowait
    for (int i = 0; i < v->bands; i++) {
      const mptl_conv_band b = mptl_conv_band_at(v, i);
      compute_band(r, &b, (float *)own, (float *)(own + of_operand), &stats);
    }
#pragma omp critical(mptl_conv_stats)
    if (r->results->stats != NULL) mptl_stats_merge(r->results->stats, &stats);
  }
}

void mptl_conv_forward(const mptl_conv *v, const mptl_sink *y, const mptl_source *x,
                       const float *packed, const float *bias, void *scratch) {
  compute(&(run){v, x, y, packed, bias}, scratch);
}

void mptl_conv_backward_data(const mptl_conv *v, const mptl_sink *dx, const mptl_source *dy,
                             const float *packed, void *scratch) {
  compute(&(run){v, dy, dx, packed, NULL}, scratch);
}
