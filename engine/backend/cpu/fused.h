/* Inside fused.c and fused_tile.c: a stage of pointwise operators, run tile by tile. */
#ifndef MPTL_BACKEND_CPU_FUSED_H
#define MPTL_BACKEND_CPU_FUSED_H

#include "backend/cpu/cpu.h"

/* The operators of a stage, as calls of this run. */
typedef struct fused {
  int n;
  const mptl_call *calls;
} fused;

/* The buffers of one operator, each for one tile: its output (backward: the gradient of its
 * output), its rounded output, its inputs, the gradients of its inputs. */
enum { VALUE, OUT, INPUTS };
static inline size_t buffers(const mptl_call *c) { return INPUTS + 2 * (size_t)c->op->n_in; }

static inline const mptl_cpu_op *row(const mptl_call *c) { return mptl_cpu_ops[c->op->kind->id]; }

static inline size_t channels(const fused *s) {
  return (size_t)s->calls[0].graph->values[s->calls[0].op->out].shape.c;
}

/* Elements of a tile: whole pixels, if a pixel fits. */
static inline size_t tile_size(const fused *s) {
  size_t c = channels(s);
  return c <= MPTL_TILE ? MPTL_TILE / c * c : MPTL_TILE;
}

/* The functions of one operator, and its part of a thread's memory. */
typedef struct desk {
  const mptl_pointwise *op;
  mptl_round_stats *stats; /* of y, then of each dx */
  double *sums;            /* of all blocks */
  float *partial, *buffer;
  mptl_code_tile dy;     /* backward, in each tile: the gradient of the output, if it is in codes */
  mptl_round_stats kept; /* SUM: of the gradients that are kept (mptl_fused_keeps) */
} desk;

static inline float *buffer_of(const desk *d, size_t which) {
  return d->buffer + which * MPTL_TILE;
}

/* The purpose of a traversal. All purposes compute the same values; only STORE counts exponents and
 * reports the statistics of rounding, apart from those of gradients that SUM has kept. */
typedef enum purpose { STORE, SUM, FIND_RANGES } purpose;

typedef struct traversal {
  purpose purpose;
  bool forward;
  bool *kept; /* backward, by tile: whether SUM has kept a gradient; NULL: it keeps none */
  int of;     /* FIND_RANGES: the operator whose ranges are wanted */
  const bool
      *leads; /* FIND_RANGES: by operator, whether its output (backward: gradient) leads to them */
} traversal;

/* Runs one tile: the operators of a stage forward, or backward. tile->offset and n are set. */
void mptl_fused_forward_tile(const traversal *t, const fused *s, const desk *desks,
                             mptl_tile *tile);
void mptl_fused_backward_tile(const traversal *t, const fused *s, desk *desks, mptl_tile *tile);

/* Gives an operator its inputs: in codes, if it takes them. */
void mptl_fused_read_inputs(const fused *s, const desk *desks, int j, mptl_tile *tile);

/* Whether the gradient of the stage's output is a sum in binary32, and the last operator's gradient
 * is rounded to codes. Then SUM keeps these codes where the sum was: STORE reads a quarter of the
 * memory, and rounds nothing again. */
bool mptl_fused_keeps(const fused *s);

#endif
