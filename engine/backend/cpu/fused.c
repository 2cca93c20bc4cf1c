/* Runs a stage of pointwise operators tile by tile: what passes between them stays in the caches.
 *
 * Where operators need sums over the batch first (batch norm), a pass over the tiles takes them: it computes what leads to them and stores
 * nothing. Sums run over fixed blocks of the array, in binary32 within a block's 64 pixels and in binary64 above that, so that they
 * do not depend on the number of threads.
 *
 * Where bias shifts come from the values (FP(e,m,auto)), passes before that measure them: each finds the largest magnitudes that can be
 * found by now, of what is computed from inputs that can be rounded, and the next pass gets further. Then the rounders are fitted, and the
 * pass that stores is as any other.
 */
#include <omp.h>
#include <string.h>

#include "backend/cpu/cpu.h"

enum { BLOCKS = 64, ROWS = 64 }; /* blocks of the array, pixels summed in binary32 */

/* Buffers of one operator, of a tile each: its output or that output's gradient, its rounded output, inputs, gradients of inputs. */
enum { VALUE, OUT, INPUTS };
static size_t buffers(const mptl_call *c) { return INPUTS + 2 * (size_t)c->op->n_in; }

static size_t channels(const mptl_stage *s) { return (size_t)s->calls[0]->graph->values[s->calls[0]->op->out].shape.c; }
static size_t total(const mptl_stage *s) { return mptl_batch_numel(s->calls[0], s->calls[0]->op->out); }

/* Tiles are whole pixels where a pixel fits. */
static size_t tile_size(const mptl_stage *s) {
  size_t c = channels(s);
  return c <= MPTL_TILE ? MPTL_TILE / c * c : MPTL_TILE;
}

static const mptl_cpu_op *row(const mptl_call *c) { return mptl_cpu_op_find(c->op->kind); }

static size_t op_scratch(const mptl_call *c) { return row(c)->scratch_bytes ? mptl_aligned(row(c)->scratch_bytes(c)) : 0; }
static size_t sums_bytes(const mptl_stage *s) { return mptl_aligned(BLOCKS * 2 * channels(s) * sizeof(double)); }
static size_t partial_bytes(const mptl_stage *s) { return mptl_aligned(2 * channels(s) * sizeof(float)); }

/* What a thread has: statistics of its sinks, partial sums and buffers of each operator. */
static size_t thread_bytes(const mptl_stage *s) {
  size_t bytes = 0;
  for (int j = 0; j < s->n; j++)
    bytes += mptl_aligned((1 + (size_t)s->calls[j]->op->n_in) * sizeof(mptl_round_stats)) + partial_bytes(s) +
             buffers(s->calls[j]) * MPTL_TILE * sizeof(float);
  return bytes;
}

size_t mptl_fused_scratch_bytes(const mptl_stage *s) {
  size_t bytes = (size_t)mptl_threads(s->calls[0]) * thread_bytes(s);
  for (int j = 0; j < s->n; j++) bytes += op_scratch(s->calls[j]) + sums_bytes(s);
  return bytes;
}

/* Addresses in the stage's scratch: the operators' own, sums, threads. */
static void give_scratch(mptl_stage *s) {
  char *at = s->scratch;
  for (int j = 0; j < s->n; j++) {
    s->calls[j]->scratch = at;
    at += op_scratch(s->calls[j]);
  }
}

static double *sums_of(const mptl_stage *s, int j) {
  const mptl_call *last = s->calls[s->n - 1];
  return (double *)((char *)last->scratch + op_scratch(last) + (size_t)j * sums_bytes(s));
}

/* One operator's functions and its part of a thread's memory. */
typedef struct desk {
  const mptl_pointwise *op;
  mptl_round_stats *stats; /* of y, then of each dx */
  double *sums;            /* all blocks' */
  float *partial, *buffer;
} desk;

static float *buffer_of(const desk *d, size_t which) { return d->buffer + which * MPTL_TILE; }

/* desks[n] of this thread, statistics zeroed. */
static void find_desks(const mptl_stage *s, desk *desks) {
  char *at = (char *)sums_of(s, s->n) + (size_t)omp_get_thread_num() * thread_bytes(s);
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = s->calls[j];
    size_t stats = (1 + (size_t)c->op->n_in) * sizeof(mptl_round_stats);
    desks[j].op = row(c)->pointwise;
    desks[j].sums = sums_of(s, j);
    desks[j].stats = memset(at, 0, stats);
    at += mptl_aligned(stats);
    desks[j].partial = (float *)at;
    at += partial_bytes(s);
    desks[j].buffer = (float *)at;
    at += buffers(c) * MPTL_TILE * sizeof(float);
  }
}

/* What a pass over the tiles is for. All come to the same values; only the one that stores counts their exponents and keeps the statistics
 * of rounding. One that measures computes what it can: known[j] tells whether the output of operator j, backward its gradient, can be
 * rounded. */
typedef enum purpose { STORE, SUM, MEASURE } purpose;

typedef struct pass {
  purpose purpose;
  bool forward;
  const bool *known; /* MEASURE only */
} pass;

/* Whether the gradient of input k is made of numbers that were rounded to its format already: rounding changes none of them. */
static bool is_rounded(const desk *d, const mptl_call *c, int k) {
  const mptl_rounder *from = c->dy.rounder, *to = c->dx[k].rounder;
  return d->op->backward_selects && from != NULL && !from->format.auto_bias && !to->format.auto_bias && from->emin == to->emin &&
         from->m == to->m && from->max_bits == to->max_bits && to->overflow == MPTL_INF;
}

/* Counts what is_rounded; false where there are infinities or NaNs, which are to be counted one by one. */
static bool count_rounded(const mptl_sink *sink, const float *x, size_t n, mptl_round_stats *stats) {
  uint32_t largest = mptl_layers()->largest(x, n);
  if (largest > sink->rounder->max_bits) return false;
  mptl_stats_merge(stats, &(mptl_round_stats){.elements = n, .max_abs = mptl_bits_f32(largest)});
  return true;
}

/* Rounds what stays in a buffer, unless it is rounded, or measures it. */
static void round_buffer(const pass *p, const mptl_sink *sink, const mptl_tile *tile, float *x, mptl_round_stats *stats,
                         bool rounded) {
  if (sink->measure) {
    mptl_note_largest(stats, x, tile->n);
    return;
  }
  if (sink->exponents && p->purpose == STORE) mptl_add_exponents(sink->exponents, x, tile->n);
  if (sink->rounder->is_identity)
    stats->elements += tile->n;
  else if (!rounded || (p->purpose == STORE && !count_rounded(sink, x, tile->n, stats)))
    mptl_round_f32(x, x, tile->n, sink->rounder, sink->key, sink->index0 + tile->offset, stats);
}

static void read_inputs(const mptl_stage *s, const desk *desks, int j, mptl_tile *tile) {
  const mptl_call *c = s->calls[j];
  for (int k = 0; k < c->op->n_in; k++)
    tile->x[k] = c->from[k] >= 0 ? buffer_of(&desks[c->from[k]], VALUE)
                                 : mptl_read(&c->in[k], tile->offset, tile->n, buffer_of(&desks[j], INPUTS + (size_t)k));
}

static void forward_tile(const pass *p, const mptl_stage *s, const desk *desks, mptl_tile *tile) {
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = s->calls[j];
    bool stored = j == s->n - 1;
    if (p->purpose == MEASURE && !c->y.measure && (stored || !p->known[j])) continue;
    read_inputs(s, desks, j, tile);
    tile->y = buffer_of(&desks[j], VALUE);
    if (stored) tile->y = mptl_results(&c->y, tile->offset, tile->y);
    for (int k = 0; k < c->op->n_in; k++) /* results that go where an operand is */
      if (tile->y == tile->x[k]) tile->y = buffer_of(&desks[j], VALUE);
    desks[j].op->forward(c, tile);
    if (stored)
      mptl_write(&c->y, tile->offset, tile->n, tile->y, desks[j].stats);
    else
      round_buffer(p, &c->y, tile, tile->y, desks[j].stats, false);
  }
}

/* Whether a pass computes a gradient of operator j: those that stay in buffers (all, or what is known), those that go to memory. */
static bool computes(const pass *p, const mptl_call *c, int k) {
  const mptl_sink *dx = &c->dx[k];
  if (!mptl_wanted(dx) || p->purpose == STORE) return mptl_wanted(dx);
  return dx->measure || (c->from[k] >= 0 && (p->purpose == SUM || p->known[c->from[k]]));
}

/* Where the gradients of operator j go that the pass computes; NULL for the others. Whether there are any. */
static bool find_results(const pass *p, const mptl_stage *s, const desk *desks, int j, mptl_tile *tile) {
  const mptl_call *c = s->calls[j];
  bool any = false;
  for (int k = 0; k < c->op->n_in; k++) {
    tile->dx[k] = NULL;
    if (!computes(p, c, k)) continue;
    if (c->from[k] >= 0) {
      tile->dx[k] = buffer_of(&desks[c->from[k]], VALUE);
    } else {
      float *buffer = buffer_of(&desks[j], INPUTS + (size_t)(c->op->n_in + k));
      tile->dx[k] = mptl_results(&c->dx[k], tile->offset, buffer);
      if (tile->dx[k] == tile->dy) tile->dx[k] = buffer; /* where the gradient of the output still is needed */
    }
    any = true;
  }
  return any;
}

/* One operator of a backward tile: the gradients that the pass computes and, where it sums, the operator's sums. */
static void backward_op(const pass *p, const mptl_stage *s, const desk *desks, int j, mptl_tile *tile) {
  const mptl_call *c = s->calls[j];
  bool any = find_results(p, s, desks, j, tile), sums = p->purpose == SUM && desks[j].op->backward_sums != NULL;
  if (!any && !sums) return;
  if (c->op->kind->backward_reads_in) read_inputs(s, desks, j, tile);
  if (c->op->kind->backward_reads_out) tile->y = (float *)mptl_read(&c->out, tile->offset, tile->n, buffer_of(&desks[j], OUT));
  if (sums) desks[j].op->backward_sums(c, tile, desks[j].partial);
  if (any) desks[j].op->backward(c, tile);
  for (int k = 0; k < c->op->n_in; k++) {
    if (tile->dx[k] == NULL) continue;
    if (c->from[k] >= 0)
      round_buffer(p, &c->dx[k], tile, tile->dx[k], &desks[j].stats[1 + k], is_rounded(&desks[j], c, k));
    else
      mptl_write(&c->dx[k], tile->offset, tile->n, tile->dx[k], &desks[j].stats[1 + k]);
  }
}

static void backward_tile(const pass *p, const mptl_stage *s, const desk *desks, mptl_tile *tile) {
  for (int j = s->n - 1; j >= 0; j--) {
    const mptl_call *c = s->calls[j];
    float *dy = buffer_of(&desks[j], VALUE);
    if (p->purpose == MEASURE && !p->known[j]) continue;
    tile->dy = j == s->n - 1 ? mptl_read(&c->dy, tile->offset, tile->n, dy) : dy;
    backward_op(p, s, desks, j, tile);
  }
}

/* Statistics of what a pass stored, or of what it measured. */
static void merge_stats(const pass *p, const mptl_stage *s, const desk *desks) {
  bool measured = p->purpose == MEASURE;
#pragma omp critical(mptl_fused_stats)
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = s->calls[j];
    if (c->y.measure == measured) mptl_stats_merge(c->y.stats, &desks[j].stats[0]);
    for (int k = 0; k < c->op->n_in; k++)
      if (mptl_wanted(&c->dx[k]) && c->dx[k].measure == measured) mptl_stats_merge(c->dx[k].stats, &desks[j].stats[1 + k]);
  }
}

static void run_tiles(const mptl_stage *s, const pass *p) {
  size_t n = total(s), size = tile_size(s), count = (n + size - 1) / size;
#pragma omp parallel num_threads(mptl_threads(s->calls[0])) if (count > 1)
  {
    desk desks[s->n];
    find_desks(s, desks);
#pragma omp for schedule(static)
    for (size_t i = 0; i < count; i++) {
      mptl_tile tile = {.offset = i * size, .n = n - i * size < size ? n - i * size : size};
      if (p->forward)
        forward_tile(p, s, desks, &tile);
      else
        backward_tile(p, s, desks, &tile);
    }
    merge_stats(p, s, desks);
  }
}

static bool has_sums(const mptl_pointwise *p, const mptl_call *c, bool forward) {
  return forward ? c->train && p->forward_sums != NULL : p->backward_sums != NULL;
}

/* Moves the partial sums of all operators to a block's. */
static void flush(const mptl_stage *s, const desk *desks, size_t block, bool forward) {
  size_t width = 2 * channels(s);
  for (int j = 0; j < s->n; j++) {
    if (!has_sums(desks[j].op, s->calls[j], forward)) continue;
    double *sums = desks[j].sums + block * width;
    for (size_t i = 0; i < width; i++) sums[i] += (double)desks[j].partial[i];
    memset(desks[j].partial, 0, width * sizeof *desks[j].partial);
  }
}

static void sum_tile(const mptl_stage *s, const desk *desks, mptl_tile *tile, bool forward) {
  if (!forward) {
    backward_tile(&(pass){.purpose = SUM}, s, desks, tile);
    return;
  }
  for (int j = 0; j < s->n; j++) {
    if (!has_sums(desks[j].op, s->calls[j], true)) continue;
    read_inputs(s, desks, j, tile);
    desks[j].op->forward_sums(s->calls[j], tile, desks[j].partial);
  }
}

/* Fills in the first block of each operator's sums: the totals. */
static void run_sums(const mptl_stage *s, bool forward) {
  size_t n = total(s), size = tile_size(s), width = 2 * channels(s), tiles = (n + size - 1) / size;
  size_t per_block = (tiles + BLOCKS - 1) / BLOCKS * size, flush_after = ROWS * channels(s);
  memset(sums_of(s, 0), 0, (size_t)s->n * sums_bytes(s));
#pragma omp parallel num_threads(mptl_threads(s->calls[0])) if (tiles > 1)
  {
    desk desks[s->n];
    find_desks(s, desks);
    for (int j = 0; j < s->n; j++) memset(desks[j].partial, 0, partial_bytes(s));
#pragma omp for schedule(static)
    for (size_t b = 0; b < BLOCKS; b++) {
      size_t end = (b + 1) * per_block < n ? (b + 1) * per_block : n, summed = 0;
      for (size_t at = b * per_block; at < end; at += size) {
        mptl_tile tile = {.offset = at, .n = end - at < size ? end - at : size};
        sum_tile(s, desks, &tile, forward);
        summed += tile.n;
        if (summed < flush_after) continue;
        flush(s, desks, b, forward);
        summed = 0;
      }
      flush(s, desks, b, forward);
    }
  }
  for (int j = 0; j < s->n; j++) {
    double *sums = sums_of(s, j);
    for (size_t b = 1; b < BLOCKS; b++)
      for (size_t i = 0; i < width; i++) sums[i] += sums[b * width + i];
  }
}

/* Fits the rounders of the operators' outputs. */
static void fit_outputs(const mptl_stage *s) {
  bool known[s->n], any;
  mptl_measured measured[s->n];
  memset(known, 0, sizeof known);
  do {
    any = false;
    for (int j = 0; j < s->n; j++) {
      mptl_call *c = s->calls[j];
      bool ready = !known[j];
      for (int k = 0; k < c->op->n_in; k++) ready = ready && (c->from[k] < 0 || known[c->from[k]]);
      if (!ready) continue;
      known[j] = !mptl_fits(&c->y);
      if (known[j]) continue;
      mptl_measure_begin(&c->y, &measured[j]);
      any = true;
    }
    if (!any) return;
    run_tiles(s, &(pass){MEASURE, true, known});
    for (int j = 0; j < s->n; j++) {
      if (!s->calls[j]->y.measure) continue;
      mptl_measure_end(&s->calls[j]->y, &measured[j]);
      known[j] = true;
    }
  } while (true);
}

/* Measures the gradients that are to be fitted and can be computed: those that stay within the stage, or those that go to memory; none
 * twice. Whether there were any. */
static bool measure_gradients(const mptl_stage *s, bool *known, bool memory) {
  mptl_measured measured[s->n][MPTL_MAX_INPUTS];
  bool any = false;
  for (int j = s->n - 1; j >= 0; j--) {
    mptl_call *c = s->calls[j];
    for (int k = 0; known[j] && k < c->op->n_in; k++) {
      int from = c->from[k];
      if (!mptl_wanted(&c->dx[k]) || (from < 0) != memory || (from >= 0 && known[from])) continue;
      if (!mptl_fits(&c->dx[k])) {
        if (from >= 0) known[from] = true;
        continue;
      }
      mptl_measure_begin(&c->dx[k], &measured[j][k]);
      any = true;
    }
  }
  if (any) run_tiles(s, &(pass){MEASURE, false, known});
  for (int j = 0; any && j < s->n; j++) {
    mptl_call *c = s->calls[j];
    for (int k = 0; k < c->op->n_in; k++) {
      if (!c->dx[k].measure) continue;
      mptl_measure_end(&c->dx[k], &measured[j][k]);
      if (c->from[k] >= 0) known[c->from[k]] = true;
    }
  }
  return any;
}

mptl_status mptl_fused_forward(mptl_stage *s) {
  bool sums = false;
  give_scratch(s);
  for (int j = 0; j < s->n; j++) {
    mptl_call *c = s->calls[j];
    const mptl_pointwise *p = row(c)->pointwise;
    if (!has_sums(p, c, true)) continue;
    if (p->forward_before_sums) MPTL_TRY(mptl_in_operator(p->forward_before_sums(c), c->op));
    sums = true;
  }
  if (sums) run_sums(s, true);
  for (int j = 0; j < s->n; j++) {
    mptl_call *c = s->calls[j];
    const mptl_pointwise *p = row(c)->pointwise;
    if (p->forward_begin) MPTL_TRY(mptl_in_operator(p->forward_begin(c, has_sums(p, c, true) ? sums_of(s, j) : NULL), c->op));
  }
  fit_outputs(s);
  run_tiles(s, &(pass){STORE, true, NULL});
  return MPTL_OK;
}

mptl_status mptl_fused_backward(mptl_stage *s) {
  bool sums = false, wanted = false;
  give_scratch(s);
  for (int j = 0; j < s->n; j++) {
    sums = sums || has_sums(row(s->calls[j])->pointwise, s->calls[j], false);
    for (int k = 0; k < s->calls[j]->op->n_in; k++) wanted = wanted || mptl_wanted(&s->calls[j]->dx[k]);
  }
  bool known[s->n];
  memset(known, 0, sizeof known);
  known[s->n - 1] = true;
  while (measure_gradients(s, known, false)) continue;
  if (sums) run_sums(s, false);
  for (int j = 0; j < s->n; j++) {
    mptl_call *c = s->calls[j];
    const mptl_pointwise *p = row(c)->pointwise;
    if (p->backward_begin) MPTL_TRY(mptl_in_operator(p->backward_begin(c, sums_of(s, j)), c->op));
  }
  measure_gradients(s, known, true);
  if (wanted) run_tiles(s, &(pass){STORE, false, NULL});
  return MPTL_OK;
}
