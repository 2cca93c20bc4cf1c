/* One tile of a stage: runs its operators forward or backward, on codes where they can, and rounds,
 * counts and stores their results. See fused.c. */
#include <string.h>

#include "backend/cpu/fused.h"

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

void mptl_fused_read_inputs(const fused *s, const desk *desks, int j, mptl_tile *tile) {
  tile->x_codes = input_codes(s, desks, j, tile);
  if (tile->x_codes.codes == NULL) read_floats(s, desks, j, tile);
}

void mptl_fused_forward_tile(const traversal *t, const fused *s, const desk *desks,
                             mptl_tile *tile) {
  const bool on_codes = t->purpose == STORE && ends_on_codes(s);
  for (int j = 0; j < s->n; j++) {
    const mptl_call *c = &s->calls[j];
    bool stored = j == s->n - 1;
    if (t->purpose == FIND_RANGES && j != t->of && !t->leads[j]) continue;
    mptl_fused_read_inputs(s, desks, j, tile);
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

/* ---- Gradients that are kept in codes ---- */

bool mptl_fused_keeps(const fused *s) {
  const mptl_call *c = &s->calls[s->n - 1];
  const mptl_sink *dx = &c->dx[0];
  return c->may_overwrite_dy && row(c)->pointwise->backward_sums == NULL &&
         c->dy.size == sizeof(float) && c->op->n_in == 1 && c->from[0] >= 0 &&
         row(c)->pointwise->backward_codes != NULL && c->op->kind->backward_reads_out &&
         c->out.size < sizeof(float) && mptl_wanted(dx) && takes_codes(dx, dx->rounder);
}

/* Where a tile of the last operator's gradient is kept. */
static char *kept_codes(const mptl_call *c, const mptl_tile *tile) {
  return (char *)(uintptr_t)c->dy.data + tile->offset * sizeof(float);
}

/* Runs the last operator backward, and keeps its gradient. Returns false, and changes nothing, if
 * it is not finite. */
static bool keep_gradient(const fused *s, desk *desks, mptl_tile *tile) {
  const mptl_call *c = &s->calls[s->n - 1];
  const mptl_sink *dx = &c->dx[0];
  desk *d = &desks[s->n - 1];
  void *codes = buffer_of(d, OUT);
  mptl_round_stats found = {0};
  tile->dy = (const float *)c->dy.data + tile->offset;
  tile->y_codes = output_codes(c, tile);
  tile->dx[0] = buffer_of(&desks[c->from[0]], VALUE);
  d->op->backward(c, tile);
  mptl_encode_f32(codes, tile->dx[0], tile->n, dx->rounder, dx->key, dx->index0 + tile->offset,
                  &found);
  if (found.nan_in + found.inf_in + found.overflow > 0) return false;
  memcpy(kept_codes(c, tile), codes, tile->n * mptl_code_size(dx->rounder->format));
  mptl_stats_merge(&d->kept, &found);
  return true;
}

/* Whether the last operator's gradient is kept; then it is the gradient of the output in front of
 * it. STORE copies it, since results may overwrite it. */
static bool takes_kept(const traversal *t, const fused *s, desk *desks, mptl_tile *tile) {
  if (t->kept == NULL) return false;
  const mptl_call *c = &s->calls[s->n - 1];
  bool *kept = &t->kept[tile->offset / tile_size(s)];
  if (t->purpose == SUM) *kept = keep_gradient(s, desks, tile);
  if (!*kept) return false;
  void *codes = buffer_of(&desks[s->n - 1], OUT);
  if (t->purpose == STORE)
    memcpy(codes, kept_codes(c, tile), tile->n * mptl_code_size(c->dx[0].rounder->format));
  desks[c->from[0]].dy = (mptl_code_tile){.codes = codes, .rounder = c->dx[0].rounder};
  return true;
}

void mptl_fused_backward_tile(const traversal *t, const fused *s, desk *desks, mptl_tile *tile) {
  const mptl_source *dy = &s->calls[s->n - 1].dy;
  const bool in_codes = dy->size < sizeof(float) && t->purpose != FIND_RANGES;
  for (int j = 0; j < s->n; j++) desks[j].dy.codes = NULL;
  if (in_codes)
    desks[s->n - 1].dy = (mptl_code_tile){.codes = (const char *)dy->data + tile->offset * dy->size,
                                          .rounder = dy->rounder};
  for (int j = s->n - (takes_kept(t, s, desks, tile) ? 2 : 1); j >= 0; j--) {
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
