/* Runs a stage of pointwise operators tile by tile, so that intermediate values stay in the caches.
 *
 * A traversal is one loop over all tiles of a stage, for one purpose. If an operator needs sums
 * over the batch (batch norm), a traversal for them comes first; it stores nothing. A traversal
 * that finds ranges (find_ranges of mptl_backend) stores nothing either: it computes only what one
 * operator's results depend on.
 *
 * Values that stay in a stage are in binary32, but a ReLU works on codes where it can: forward on
 * the codes that the stage stores, backward on those of the gradient, which an addition passes on.
 *
 * Sums run over fixed blocks of the array, so that they do not depend on the number of threads.
 * Within a block, up to 64 pixels are added in binary32, and these sums are added in binary64.
 */
#include <omp.h>
#include <string.h>

#include "backend/cpu/cpu.h"

enum { BLOCKS = 64, ROWS = 64 }; /* blocks of the array; pixels added in binary32 */

/* The operators of a stage, as calls of this run. */
typedef struct fused {
  int n;
  const mptl_call *calls;
} fused;

/* The buffers of one operator, each for one tile: its output (backward: the gradient of its
 * output), its rounded output, its inputs, the gradients of its inputs. */
enum { VALUE, OUT, INPUTS };
static size_t buffers(const mptl_call *c) { return INPUTS + 2 * (size_t)c->op->n_in; }

static size_t channels(const fused *s) {
  return (size_t)s->calls[0].graph->values[s->calls[0].op->out].shape.c;
}
static size_t total(const fused *s) { return mptl_batch_numel(&s->calls[0], s->calls[0].op->out); }

/* Elements of a tile: whole pixels, if a pixel fits. */
static size_t tile_size(const fused *s) {
  size_t c = channels(s);
  return c <= MPTL_TILE ? MPTL_TILE / c * c : MPTL_TILE;
}

static const mptl_cpu_op *row(const mptl_call *c) { return mptl_cpu_ops[c->op->kind->id]; }

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

/* The functions of one operator, and its part of a thread's memory. */
typedef struct desk {
  const mptl_pointwise *op;
  mptl_round_stats *stats; /* of y, then of each dx */
  double *sums;            /* of all blocks */
  float *partial, *buffer;
  mptl_code_tile dy; /* backward, in each tile: the gradient of the output, if it is in codes */
} desk;

static float *buffer_of(const desk *d, size_t which) { return d->buffer + which * MPTL_TILE; }

/* Fills in desks[n] for this thread, with statistics of zero. */
static void find_desks(const fused *s, desk *desks) {
  char *at = (char *)sums_of(s, s->n) + (size_t)omp_get_thread_num() * thread_bytes(s);
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = &s->calls[j];
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

/* The purpose of a traversal. All purposes compute the same values; only STORE counts exponents and
 * keeps the statistics of rounding. */
typedef enum purpose { STORE, SUM, FIND_RANGES } purpose;

typedef struct traversal {
  purpose purpose;
  bool forward;
  int of; /* FIND_RANGES: the operator whose ranges are wanted */
  const bool
      *leads; /* FIND_RANGES: by operator, whether its output (backward: gradient) leads to them */
} traversal;

/* Whether all elements of the gradient of input k have been rounded to its format already: then
 * rounding does not change them. */
static bool is_rounded(const desk *d, const mptl_call *c, int k) {
  const mptl_rounder *from = c->dy.rounder, *to = c->dx[k].rounder;
  return d->op->backward_selects && from != NULL && !from->format.auto_bias &&
         !to->format.auto_bias && from->emin == to->emin && from->m == to->m &&
         from->max_bits == to->max_bits && to->overflow == MPTL_INF;
}

/* Counts elements for which is_rounded holds. Returns false, and counts nothing, if there are
 * infinities or NaNs: they must be counted one by one. */
static bool count_rounded(const mptl_sink *sink, const float *x, size_t n,
                          mptl_round_stats *stats) {
  uint32_t largest = mptl_layers()->largest(x, n);
  if (largest > sink->rounder->max_bits) return false;
  mptl_stats_merge(stats, &(mptl_round_stats){.elements = n, .max_abs = mptl_bits_f32(largest)});
  return true;
}

/* Rounds a tile that stays in a buffer (is_rounded says whether it is rounded already), or finds
 * its range. */
static void round_buffer(const traversal *t, const mptl_sink *sink, const mptl_tile *tile, float *x,
                         mptl_round_stats *stats, bool rounded) {
  if (sink->ranging) {
    mptl_note_largest(stats, x, tile->n);
    return;
  }
  if (sink->exponents && t->purpose == STORE) mptl_add_exponents(sink->exponents, x, tile->n);
  if (sink->rounder->is_identity)
    stats->elements += tile->n;
  else if (!rounded || (t->purpose == STORE && !count_rounded(sink, x, tile->n, stats)))
    mptl_round_f32(x, x, tile->n, sink->rounder, sink->key, sink->index0 + tile->offset, stats);
}

/* mptl_write for gradients that are rounded already, unless there are infinities or NaNs. */
static void write_rounded(const mptl_sink *sink, const mptl_tile *tile, float *x,
                          mptl_round_stats *stats) {
  float *dst = (float *)sink->data + tile->offset;
  if (sink->size < sizeof(float) || sink->ranging || sink->exponents != NULL ||
      sink->rounder->is_identity || !count_rounded(sink, x, tile->n, stats))
    mptl_write(sink, tile->offset, tile->n, x, stats);
  else if (sink->accumulate)
    mptl_layers()->accumulate(dst, x, tile->n);
  else
    memcpy(dst, x, tile->n * sizeof *x);
}

/* ---- Operators on codes ---- */

/* Whether a sink keeps codes of a format. */
static bool takes_codes(const mptl_sink *sink, const mptl_rounder *r) {
  const mptl_rounder *to = sink->rounder;
  return !sink->ranging && sink->exponents == NULL && !to->format.auto_bias &&
         !r->format.auto_bias && mptl_format_equal(to->format, r->format) &&
         mptl_code_size(r->format) <= 2;
}

/* Counts n finite values of a sink's format. */
static void count_codes(mptl_round_stats *stats, const mptl_rounder *r, size_t n,
                        uint32_t largest) {
  const float max_abs = mptl_bits_f32(mptl_decode_code(largest, r));
  stats->elements += n;
  if (max_abs > stats->max_abs) stats->max_abs = max_abs;
}

/* Whether the stage's last operator runs forward on the codes of its input. */
static bool ends_on_codes(const fused *s) {
  if (s->n < 2) return false;
  const mptl_call *last = &s->calls[s->n - 1], *c = last - 1;
  return row(last)->pointwise->forward_codes != NULL && last->from[0] == s->n - 2 &&
         last->y.size < sizeof(float) && takes_codes(&c->y, last->y.rounder) &&
         takes_codes(&last->y, last->y.rounder);
}

/* Encodes the results of the last operator but one where those of the last one are stored, and runs
 * the last one there. Returns false, and counts nothing, if there are results that are not finite
 * after rounding. */
static bool end_on_codes(const fused *s, const desk *desks, const mptl_tile *tile) {
  const mptl_sink *x = &s->calls[s->n - 2].y, *y = &s->calls[s->n - 1].y;
  void *codes = (char *)y->data + tile->offset * y->size;
  mptl_round_stats *stats = desks[s->n - 2].stats, before = *stats;
  mptl_encode_f32(codes, tile->y, tile->n, x->rounder, x->key, x->index0 + tile->offset, stats);
  const bool saturates = x->rounder->overflow == MPTL_SATURATE,
             overflows = stats->overflow + stats->inf_in > before.overflow + before.inf_in;
  if (stats->nan_in > before.nan_in || (!saturates && overflows)) {
    *stats = before;
    return false;
  }
  count_codes(desks[s->n - 1].stats, y->rounder, tile->n,
              desks[s->n - 1].op->forward_codes(codes, tile->n, y->rounder));
  return true;
}

/* The codes that an operator takes instead of its input; none if it does not, or the input is not
 * in codes. */
static mptl_code_tile input_codes(const fused *s, const desk *desks, int j, const mptl_tile *tile) {
  const mptl_call *c = &s->calls[j];
  const mptl_source *in = &c->in[0];
  if (desks[j].op->reads_codes == NULL || c->from[0] >= 0 || in->size == sizeof(float))
    return (mptl_code_tile){0};
  const mptl_code_tile x = {.codes = (const char *)in->data + tile->offset * in->size,
                            .rounder = in->rounder};
  return desks[j].op->reads_codes(&x, tile->n) ? x : (mptl_code_tile){0};
}

static void read_floats(const fused *s, const desk *desks, int j, mptl_tile *tile) {
  const mptl_call *c = &s->calls[j];
  for (int k = 0; k < c->op->n_in; k++)
    tile->x[k] = c->from[k] >= 0 ? buffer_of(&desks[c->from[k]], VALUE)
                                 : mptl_read(&c->in[k], tile->offset, tile->n,
                                             buffer_of(&desks[j], INPUTS + (size_t)k));
}

/* Gives an operator its inputs: in codes, if it takes them. */
static void read_inputs(const fused *s, const desk *desks, int j, mptl_tile *tile) {
  tile->x_codes = input_codes(s, desks, j, tile);
  if (tile->x_codes.codes == NULL) read_floats(s, desks, j, tile);
}

static void forward_tile(const traversal *t, const fused *s, const desk *desks, mptl_tile *tile) {
  const bool on_codes = t->purpose == STORE && ends_on_codes(s);
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = &s->calls[j];
    bool stored = j == s->n - 1;
    if (t->purpose == FIND_RANGES && j != t->of && !t->leads[j]) continue;
    read_inputs(s, desks, j, tile);
    tile->y = buffer_of(&desks[j], VALUE);
    if (stored) tile->y = mptl_results(&c->y, tile->offset, tile->y);
    for (int k = 0; k < c->op->n_in; k++) /* a result must not overwrite an operand */
      if (tile->y == tile->x[k]) tile->y = buffer_of(&desks[j], VALUE);
    desks[j].op->forward(c, tile);
    if (on_codes && j == s->n - 2 && end_on_codes(s, desks, tile)) return;
    if (stored)
      mptl_write(&c->y, tile->offset, tile->n, tile->y, desks[j].stats);
    else
      round_buffer(t, &c->y, tile, tile->y, desks[j].stats, false);
  }
}

/* Whether a traversal computes the gradient of input k. Sums need the gradients that stay in
 * buffers. */
static bool computes(const traversal *t, const mptl_call *c, int k) {
  const mptl_sink *dx = &c->dx[k];
  if (!mptl_wanted(dx) || t->purpose == STORE) return mptl_wanted(dx);
  return dx->ranging || (c->from[k] >= 0 && (t->purpose == SUM || t->leads[c->from[k]]));
}

/* Sets where each gradient of operator j's inputs goes; NULL if the traversal does not compute it.
 * Returns whether it computes any. */
static bool find_results(const traversal *t, const fused *s, const desk *desks, int j,
                         mptl_tile *tile) {
  const mptl_call *c = &s->calls[j];
  bool any = false;
  for (int k = 0; k < c->op->n_in; k++) {
    tile->dx[k] = NULL;
    if (!computes(t, c, k)) continue;
    if (c->from[k] >= 0) {
      tile->dx[k] = buffer_of(&desks[c->from[k]], VALUE);
    } else {
      float *buffer = buffer_of(&desks[j], INPUTS + (size_t)(c->op->n_in + k));
      tile->dx[k] = mptl_results(&c->dx[k], tile->offset, buffer);
      if (tile->dx[k] == tile->dy)
        tile->dx[k] = buffer; /* the gradient of the output is still needed there */
    }
    any = true;
  }
  return any;
}

/* The output that an operator with backward_codes reads, if it is stored in codes. */
static mptl_code_tile output_codes(const mptl_call *c, const mptl_tile *tile) {
  const bool has_them = c->op->kind->backward_reads_out && c->out.size < sizeof(float) &&
                        row(c)->pointwise->backward_codes != NULL;
  if (!has_them) return (mptl_code_tile){0};
  return (mptl_code_tile){.codes = (const char *)c->out.data + tile->offset * c->out.size,
                          .rounder = c->out.rounder};
}

/* Runs one operator backward on codes, if it can, and the gradients that the traversal computes are
 * finite. Returns whether it did. */
static bool backward_on_codes(const traversal *t, const fused *s, desk *desks, int j,
                              const mptl_tile *tile) {
  const mptl_call *c = &s->calls[j];
  desk *d = &desks[j];
  const mptl_rounder *r = d->dy.rounder;
  if (d->dy.codes == NULL || d->op->backward_codes == NULL) return false;
  for (int k = 0; k < c->op->n_in; k++)
    if (mptl_wanted(&c->dx[k]) && !takes_codes(&c->dx[k], r)) return false;
  const mptl_code_tile y = output_codes(c, tile);
  if (c->op->kind->backward_reads_out && c->out.size != mptl_code_size(r->format)) return false;
  mptl_code_tile dx = d->op->backward_codes(&d->dy, &y, tile->n, buffer_of(d, OUT));
  if (dx.largest > r->max_code) return false;
  for (int k = 0; k < c->op->n_in; k++) {
    if (!computes(t, c, k)) continue;
    if (c->from[k] >= 0)
      desks[c->from[k]].dy = dx;
    else
      mptl_write_codes(&c->dx[k], tile->offset, tile->n, dx.codes, buffer_of(d, VALUE));
    count_codes(&d->stats[1 + k], r, tile->n, dx.largest);
  }
  return true;
}

/* Whether backward of operator j reads its input instead of its output, which the operator in front
 * of it computes once more, from what it reads in any case: memory is slower than a batch norm in
 * binary32. */
static bool reads_input(const fused *s, int j) {
  const mptl_call *c = &s->calls[j];
  if (!row(c)->pointwise->backward_reads_either || c->from[0] < 0 || c->out.size < sizeof(float) ||
      !c->out.rounder->is_identity)
    return false;
  const mptl_call *from = &s->calls[c->from[0]];
  return row(from)->pointwise->forward_again != NULL && from->op->kind->backward_reads_in &&
         from->in[0].size == sizeof(float) && from->y.rounder->is_identity;
}

static float *compute_input(const fused *s, const desk *desks, int j, mptl_tile *tile) {
  const int from = s->calls[j].from[0];
  read_floats(s, desks, from, tile);
  tile->y = buffer_of(&desks[j], INPUTS);
  desks[from].op->forward(&s->calls[from], tile);
  return tile->y;
}

/* Runs one operator backward on a tile: the gradients that the traversal computes, and its sums if
 * the traversal sums. */
static void backward_op(const traversal *t, const fused *s, const desk *desks, int j,
                        mptl_tile *tile) {
  const mptl_call *c = &s->calls[j];
  bool any = find_results(t, s, desks, j, tile),
       sums = t->purpose == SUM && desks[j].op->backward_sums != NULL;
  if (!any && !sums) return;
  if (c->op->kind->backward_reads_in && tile->x_codes.codes == NULL) read_floats(s, desks, j, tile);
  tile->y_codes = output_codes(c, tile);
  if (c->op->kind->backward_reads_out && tile->y_codes.codes == NULL)
    tile->y = reads_input(s, j)
                  ? compute_input(s, desks, j, tile)
                  : (float *)mptl_read(&c->out, tile->offset, tile->n, buffer_of(&desks[j], OUT));
  if (sums) desks[j].op->backward_sums(c, tile, desks[j].partial);
  if (any) desks[j].op->backward(c, tile);
  for (int k = 0; k < c->op->n_in; k++) {
    if (tile->dx[k] == NULL) continue;
    const bool rounded = is_rounded(&desks[j], c, k);
    if (c->from[k] >= 0)
      round_buffer(t, &c->dx[k], tile, tile->dx[k], &desks[j].stats[1 + k], rounded);
    else if (rounded)
      write_rounded(&c->dx[k], tile, tile->dx[k], &desks[j].stats[1 + k]);
    else
      mptl_write(&c->dx[k], tile->offset, tile->n, tile->dx[k], &desks[j].stats[1 + k]);
  }
}

/* Reads the gradient of an output that is in codes: as codes, with the input, if the operator takes
 * them. */
static void read_gradient(const fused *s, const desk *desks, int j, mptl_tile *tile,
                          float *buffer) {
  const desk *d = &desks[j];
  const bool reads = d->op->reads_codes != NULL && d->op->reads_codes(&d->dy, tile->n);
  if (reads) tile->x_codes = input_codes(s, desks, j, tile);
  if (tile->x_codes.codes != NULL)
    tile->dy_codes = d->dy;
  else
    mptl_decode_f32(buffer, d->dy.codes, tile->n, d->dy.rounder);
}

static void backward_tile(const traversal *t, const fused *s, desk *desks, mptl_tile *tile) {
  const mptl_source *dy = &s->calls[s->n - 1].dy;
  const bool in_codes = dy->size < sizeof(float) && t->purpose != FIND_RANGES;
  for (int j = 0; j < s->n; j++) desks[j].dy.codes = NULL;
  if (in_codes)
    desks[s->n - 1].dy = (mptl_code_tile){.codes = (const char *)dy->data + tile->offset * dy->size,
                                          .rounder = dy->rounder};
  for (int j = s->n - 1; j >= 0; j--) {
    float *buffer = buffer_of(&desks[j], VALUE);
    if (t->purpose == FIND_RANGES && j != t->of && !t->leads[j]) continue;
    if (backward_on_codes(t, s, desks, j, tile)) continue;
    tile->dy = buffer;
    tile->dy_codes = tile->x_codes = (mptl_code_tile){0};
    if (desks[j].dy.codes != NULL)
      read_gradient(s, desks, j, tile, buffer);
    else if (j == s->n - 1)
      tile->dy = mptl_read(dy, tile->offset, tile->n, buffer);
    backward_op(t, s, desks, j, tile);
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
  size_t n = total(s), size = tile_size(s), count = (n + size - 1) / size;
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
        forward_tile(t, s, desks, &tile);
      else
        backward_tile(t, s, desks, &tile);
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

static void sum_tile(const fused *s, desk *desks, mptl_tile *tile, bool forward) {
  if (!forward) {
    backward_tile(&(traversal){.purpose = SUM}, s, desks, tile);
    return;
  }
  for (int j = 0; j < s->n; j++) {
    if (!has_sums(desks[j].op, &s->calls[j], true)) continue;
    read_inputs(s, desks, j, tile);
    desks[j].op->forward_sums(&s->calls[j], tile, desks[j].partial);
  }
}

/* Computes the sums of each operator. The totals are where the sums of its first block were. */
static void run_sums(const fused *s, bool forward) {
  size_t n = total(s), size = tile_size(s), width = 2 * channels(s), tiles = (n + size - 1) / size;
  size_t per_block = (tiles + BLOCKS - 1) / BLOCKS * size, flush_after = ROWS * channels(s);
  memset(sums_of(s, 0), 0, (size_t)s->n * sums_bytes(s));
#pragma omp parallel num_threads(mptl_threads(&s->calls[0])) if (tiles > 1)
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
  if (sums) run_sums(s, true);
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

static mptl_status begin_backward(const fused *s) {
  bool sums = false;
  prepare_inputs(s);
  for (int j = 0; j < s->n; j++)
    sums = sums || has_sums(row(&s->calls[j])->pointwise, &s->calls[j], false);
  if (sums) run_sums(s, false);
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
  MPTL_TRY(forward ? begin_forward(&s, step->ranged) : begin_backward(&s));
  if (forward || wants_gradients(&s))
    run_tiles(&s, &(traversal){.purpose = STORE, .forward = forward});
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
    MPTL_TRY(begin_backward(&s));
  else
    prepare_inputs(&s);
  mptl_call_find_ranges(&calls[i], forward, found);
  memset(leads, 0, sizeof leads);
  mark(leads, &s, i, forward);
  run_tiles(&s, &(traversal){FIND_RANGES, forward, i, leads});
  for (int k = mptl_call_sinks(&calls[i], forward, &sinks) - 1; k >= 0; k--)
    largest[k] = found[k].max_abs;
  return MPTL_OK;
}
