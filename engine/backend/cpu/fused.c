/* Runs a stage of pointwise operators tile by tile, so that intermediate values stay in the caches.
 *
 * A traversal is one loop over all tiles of a stage, for one purpose. If an operator needs sums
 * over the batch (batch norm), a traversal for them comes first; it stores no results, but backward
 * it may keep a gradient for the next traversal (mptl_fused_keeps). A traversal that finds ranges
 * (find_ranges of mptl_backend) stores nothing: it computes only what one operator's results depend
 * on.
 *
 * Values that stay in a stage are in binary32, but operators work on codes where they can: a ReLU
 * forward on the codes that the stage stores, backward on those of the gradient, which an addition
 * passes on; a batch norm on the codes of its input and of its output's gradient.
 *
 * Sums run over fixed blocks of the array, so that they do not depend on the number of threads.
 * Within a block, up to 64 pixels are added in binary32, and these sums are added in binary64.
 */
#include <omp.h>
#include <string.h>

#include "backend/cpu/fused.h"

enum { BLOCKS = 64, ROWS = 64 }; /* blocks of the array; pixels added in binary32 */

static size_t total(const fused *s) { return mptl_batch_numel(&s->calls[0], s->calls[0].op->out); }
static size_t tiles(const fused *s) { return (total(s) + tile_size(s) - 1) / tile_size(s); }

static size_t op_scratch(const mptl_call *c) {
  return row(c)->scratch_bytes ? mptl_aligned(row(c)->scratch_bytes(c)) : 0;
}
static size_t sums_bytes(const fused *s) {
  return mptl_aligned(BLOCKS * 2 * channels(s) * sizeof(double));
}
static size_t partial_bytes(const fused *s) {
  return mptl_aligned(2 * channels(s) * sizeof(float));
}

/* The scratch memory of a thread: for each operator the statistics of its sinks, partial sums and
 * buffers. */
static size_t thread_bytes(const fused *s) {
  size_t bytes = 0;
  for (int j = 0; j < s->n; j++)
    bytes += mptl_aligned((1 + (size_t)s->calls[j].op->n_in) * sizeof(mptl_round_stats)) +
             partial_bytes(s) + buffers(&s->calls[j]) * MPTL_TILE * sizeof(float);
  return bytes;
}

/* Makes the calls of the stage. The scratch memory holds each operator's own part, then the sums of
 * each operator, then the threads' parts. step NULL: only sizes are needed. */
static fused make_calls(mptl_call *calls, const mptl_stage *stage, const mptl_step *step) {
  char *at = stage->scratch;
  for (int j = 0; j < stage->n; j++) {
    mptl_call_of(&calls[j], &stage->members[j], step, at);
    at += op_scratch(&calls[j]);
  }
  return (fused){stage->n, calls};
}

size_t mptl_fused_scratch_bytes(const mptl_stage *stage) {
  mptl_call calls[stage->n];
  fused s = make_calls(calls, stage, NULL);
  size_t bytes = (size_t)mptl_threads(&calls[0]) * thread_bytes(&s);
  for (int j = 0; j < s.n; j++) bytes += op_scratch(&calls[j]) + sums_bytes(&s);
  return bytes;
}

static double *sums_of(const fused *s, int j) {
  const mptl_call *last = &s->calls[s->n - 1];
  return (double *)((char *)last->scratch + op_scratch(last) + (size_t)j * sums_bytes(s));
}

/* The marks of kept gradients, one for each tile: where the last operator's sums would be, which
 * has none. NULL: the stage keeps none, or has too many tiles (2 million pixels). */
static bool *kept_of(const fused *s) {
  return mptl_fused_keeps(s) && tiles(s) <= sums_bytes(s) ? (bool *)sums_of(s, s->n - 1) : NULL;
}

/* Fills in desks[n] for this thread, with statistics of zero. */
static void find_desks(const fused *s, desk *desks) {
  char *at = (char *)sums_of(s, s->n) + (size_t)omp_get_thread_num() * thread_bytes(s);
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = &s->calls[j];
    size_t stats = (1 + (size_t)c->op->n_in) * sizeof(mptl_round_stats);
    desks[j].op = row(c)->pointwise;
    desks[j].sums = sums_of(s, j);
    desks[j].stats = memset(at, 0, stats);
    desks[j].kept = (mptl_round_stats){0};
    at += mptl_aligned(stats);
    desks[j].partial = (float *)at;
    at += partial_bytes(s);
    desks[j].buffer = (float *)at;
    at += buffers(c) * MPTL_TILE * sizeof(float);
  }
}

/* Adds this thread's statistics of what a traversal stored, or the ranges that it found, to those
 * of the sinks. */
static void merge_stats(const traversal *t, const fused *s, const desk *desks) {
  bool ranging = t->purpose == FIND_RANGES;
#pragma omp critical(mptl_fused_stats)
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = &s->calls[j];
    if (c->y.ranging == ranging) mptl_stats_merge(c->y.stats, &desks[j].stats[0]);
    for (int k = 0; k < c->op->n_in; k++)
      if (mptl_wanted(&c->dx[k]) && c->dx[k].ranging == ranging)
        mptl_stats_merge(c->dx[k].stats, &desks[j].stats[1 + k]);
  }
}

static void run_tiles(const fused *s, const traversal *t) {
  size_t n = total(s), size = tile_size(s), count = tiles(s);
#pragma omp parallel num_threads(mptl_threads(&s->calls[0])) if (count > 1)
  {
    desk desks[s->n];
    mptl_tile tile = {0};
    find_desks(s, desks);
#pragma omp for schedule(static)
    for (size_t i = 0; i < count; i++) {
      tile.offset = i * size;
      tile.n = n - tile.offset < size ? n - tile.offset : size;
      if (t->forward)
        mptl_fused_forward_tile(t, s, desks, &tile);
      else
        mptl_fused_backward_tile(t, s, desks, &tile);
    }
    merge_stats(t, s, desks);
  }
}

static bool has_sums(const mptl_pointwise *p, const mptl_call *c, bool forward) {
  return forward ? c->train && p->forward_sums != NULL : p->backward_sums != NULL;
}

/* Adds the partial sums of all operators to those of a block, and zeroes them. */
static void flush(const fused *s, const desk *desks, size_t block, bool forward) {
  size_t width = 2 * channels(s);
  for (int j = 0; j < s->n; j++) {
    if (!has_sums(desks[j].op, &s->calls[j], forward)) continue;
    double *sums = desks[j].sums + block * width;
    for (size_t i = 0; i < width; i++) sums[i] += (double)desks[j].partial[i];
    memset(desks[j].partial, 0, width * sizeof *desks[j].partial);
  }
}

static void sum_tile(const traversal *t, const fused *s, desk *desks, mptl_tile *tile) {
  if (!t->forward) {
    mptl_fused_backward_tile(t, s, desks, tile);
    return;
  }
  for (int j = 0; j < s->n; j++) {
    if (!has_sums(desks[j].op, &s->calls[j], true)) continue;
    mptl_fused_read_inputs(s, desks, j, tile);
    desks[j].op->forward_sums(&s->calls[j], tile, desks[j].partial);
  }
}

/* Computes the sums of each operator. The totals are where the sums of its first block were. */
static void run_sums(const fused *s, const traversal *t) {
  size_t n = total(s), size = tile_size(s), width = 2 * channels(s), count = tiles(s);
  size_t per_block = (count + BLOCKS - 1) / BLOCKS * size, flush_after = ROWS * channels(s);
  memset(sums_of(s, 0), 0, (size_t)s->n * sums_bytes(s));
#pragma omp parallel num_threads(mptl_threads(&s->calls[0])) if (count > 1)
  {
    desk desks[s->n];
    mptl_tile tile = {0};
    find_desks(s, desks);
    for (int j = 0; j < s->n; j++) memset(desks[j].partial, 0, partial_bytes(s));
#pragma omp for schedule(static)
    for (size_t b = 0; b < BLOCKS; b++) {
      size_t end = (b + 1) * per_block < n ? (b + 1) * per_block : n, summed = 0;
      for (size_t at = b * per_block; at < end; at += size) {
        tile.offset = at;
        tile.n = end - at < size ? end - at : size;
        sum_tile(t, s, desks, &tile);
        summed += tile.n;
        if (summed < flush_after) continue;
        flush(s, desks, b, t->forward);
        summed = 0;
      }
      flush(s, desks, b, t->forward);
    }
    if (t->kept != NULL)
#pragma omp critical(mptl_fused_stats)
      mptl_stats_merge(s->calls[s->n - 1].dx[0].stats, &desks[s->n - 1].kept);
  }
  for (int j = 0; j < s->n; j++) {
    if (!has_sums(row(&s->calls[j])->pointwise, &s->calls[j], t->forward)) continue;
    double *sums = sums_of(s, j);
    for (size_t b = 1; b < BLOCKS; b++)
      for (size_t i = 0; i < width; i++) sums[i] += sums[b * width + i];
  }
}

/* Prepares a forward traversal: computes the sums over the batch, unless has_them (they are in the
 * scratch memory already), and calls the operators' forward_begin. */
static mptl_status begin_forward(const fused *s, bool has_them) {
  bool sums = false;
  for (int j = 0; j < s->n && !has_them; j++) {
    const mptl_call *c = &s->calls[j];
    const mptl_pointwise *p = row(c)->pointwise;
    if (!has_sums(p, c, true)) continue;
    if (p->forward_before_sums) MPTL_TRY(mptl_in_operator(p->forward_before_sums(c), c->op));
    sums = true;
  }
  if (sums) run_sums(s, &(traversal){.purpose = SUM, .forward = true});
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = &s->calls[j];
    const mptl_pointwise *p = row(c)->pointwise;
    if (p->forward_begin)
      MPTL_TRY(mptl_in_operator(p->forward_begin(c, has_sums(p, c, true) ? sums_of(s, j) : NULL),
                                c->op));
  }
  return MPTL_OK;
}

/* Makes ready for compute_input. */
static void prepare_inputs(const fused *s) {
  for (int j = 0; j < s->n; j++) {
    const mptl_pointwise *p = row(&s->calls[j])->pointwise;
    if (p->forward_again != NULL) p->forward_again(&s->calls[j]);
  }
}

static bool needs_backward_sums(const fused *s) {
  for (int j = 0; j < s->n; j++)
    if (has_sums(row(&s->calls[j])->pointwise, &s->calls[j], false)) return true;
  return false;
}

/* kept: as in a traversal. */
static mptl_status begin_backward(const fused *s, bool *kept) {
  prepare_inputs(s);
  if (needs_backward_sums(s)) run_sums(s, &(traversal){.purpose = SUM, .kept = kept});
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = &s->calls[j];
    const mptl_pointwise *p = row(c)->pointwise;
    if (p->backward_begin) MPTL_TRY(mptl_in_operator(p->backward_begin(c, sums_of(s, j)), c->op));
  }
  return MPTL_OK;
}

static bool wants_gradients(const fused *s) {
  for (int j = 0; j < s->n; j++)
    for (int k = 0; k < s->calls[j].op->n_in; k++)
      if (mptl_wanted(&s->calls[j].dx[k])) return true;
  return false;
}

mptl_status mptl_fused_run(const mptl_stage *stage, const mptl_step *step, bool forward) {
  mptl_call calls[stage->n];
  fused s = make_calls(calls, stage, step);
  bool *kept = !forward && needs_backward_sums(&s) ? kept_of(&s) : NULL;
  MPTL_TRY(forward ? begin_forward(&s, step->ranged) : begin_backward(&s, kept));
  if (forward || wants_gradients(&s))
    run_tiles(&s, &(traversal){.purpose = STORE, .forward = forward, .kept = kept});
  return MPTL_OK;
}

/* ---- Ranges ---- */

/* Marks the operators that lead to operator i, and i itself: forward those from which it gets its
 * inputs, backward those through which the gradient of its output comes. In a stage each operator
 * has one consumer at most. */
static void mark(bool *leads, const fused *s, int i, bool forward) {
  leads[i] = true;
  for (int k = 0; forward && k < s->calls[i].op->n_in; k++) {
    int from = s->calls[i].from[k];
    if (from >= 0) mark(leads, s, from, true);
  }
  for (int j = i + 1; !forward && j < s->n; j++)
    for (int k = 0; k < s->calls[j].op->n_in; k++)
      if (s->calls[j].from[k] == i) mark(leads, s, j, false);
}

/* Backward, only operator i itself can need sums: operators with sums (batch norms) write the
 * gradients of their inputs to memory, so they do not lead to another operator of the stage. */
mptl_status mptl_fused_find_ranges(const mptl_stage *stage, const mptl_step *step, bool forward,
                                   int i, float *largest) {
  mptl_call calls[stage->n];
  mptl_round_stats found[MPTL_MAX_INPUTS] = {{0}};
  mptl_sink *sinks;
  bool leads[stage->n];
  fused s = make_calls(calls, stage, step);
  for (int j = 0; j < s.n; j++) calls[j].ranging = true;
  if (forward)
    MPTL_TRY(begin_forward(&s, step->ranged));
  else if (has_sums(row(&calls[i])->pointwise, &calls[i], false))
    MPTL_TRY(begin_backward(&s, NULL));
  else
    prepare_inputs(&s);
  mptl_call_find_ranges(&calls[i], forward, found);
  memset(leads, 0, sizeof leads);
  mark(leads, &s, i, forward);
  run_tiles(&s, &(traversal){.purpose = FIND_RANGES, .forward = forward, .of = i, .leads = leads});
  for (int k = mptl_call_sinks(&calls[i], forward, &sinks) - 1; k >= 0; k--)
    largest[k] = found[k].max_abs;
  return MPTL_OK;
}
