/* The CPU backend's inside: one row of functions per operator kind, and tiles, the cache-sized pieces in which element-wise operators
 * read, compute, round, count and store in one pass over memory.
 */
#ifndef MPTL_BACKEND_CPU_H
#define MPTL_BACKEND_CPU_H

#include "backend/backend.h"

typedef struct mptl_cpu_op {
  const char *kind;                                       /* name of the operator kind */
  mptl_status (*create)(mptl_call *call, bool dx_wanted); /* NULL: nothing to prepare */
  void (*destroy)(mptl_call *call);                       /* NULL: nothing to release */
  size_t (*saved_floats)(const mptl_call *call);          /* NULL: 0 */
  size_t (*scratch_bytes)(const mptl_call *call);         /* NULL: 0 */
  size_t (*packed_bytes)(const mptl_call *call);          /* NULL: 0 */
  mptl_status (*forward)(mptl_call *call);
  mptl_status (*backward)(mptl_call *call); /* NULL: there is none (input) */
} mptl_cpu_op;

/* The row of a kind; never NULL for kinds of the operator table (a spec checks it). */
const mptl_cpu_op *mptl_cpu_op_find(const mptl_op_kind *kind);

extern const mptl_cpu_op mptl_cpu_input, mptl_cpu_conv2d, mptl_cpu_linear, mptl_cpu_batchnorm2d, mptl_cpu_relu, mptl_cpu_add,
    mptl_cpu_avgpool, mptl_cpu_log_softmax, mptl_cpu_nll_loss;

/* ---- Tiles ---- */

enum { MPTL_TILE = 2048 }; /* elements: four tiles of binary32 fit into the first-level cache */

/* What a thread has while it works on tiles. */
typedef struct mptl_tile {
  size_t offset, n;          /* elements [offset, offset + n) of the array that is gone through */
  float *scratch;            /* room for a result of n elements that is not stored where it is computed */
  mptl_round_stats stats[2]; /* of the call's sinks: y, or dx[0] and dx[1] */
} mptl_tile;

typedef void (*mptl_tile_fn)(const mptl_call *call, mptl_tile *tile);

/* Runs fn over all of total elements, in parallel, in tiles of at most max(MPTL_TILE, unit) elements, a multiple of unit (but for an
 * incomplete end); then adds the threads' statistics to the sinks', n_sinks of them. */
void mptl_run_tiles(mptl_call *call, size_t total, size_t unit, mptl_tile_fn fn, mptl_sink *sinks, int n_sinks);

/* Where to compute the tile's results for a sink: in place, or in scratch. n elements at offset of the sink's array. */
float *mptl_tile_begin(const mptl_sink *sink, const mptl_tile *tile);

/* Rounds, counts and stores what was computed at the address that mptl_tile_begin gave. which numbers the sink. */
void mptl_tile_end(const mptl_sink *sink, mptl_tile *tile, float *results, int which);

/* Rounds, counts and stores a whole array of unrounded results that a library wrote to results: sink->data itself, or scratch. */
void mptl_store(mptl_call *call, mptl_sink *sink, float *results, size_t n);

/* mptl_backend's compute. */
const char *mptl_cpu_compute(mptl_format a, mptl_format b);

/* Threads that parallel loops use at most. */
size_t mptl_thread_limit(void);

/* Elements of a value of the call's batch. */
static inline size_t mptl_batch_numel(const mptl_call *call, int value) {
  return mptl_shape_numel(call->graph->values[value].shape) * (size_t)call->batch;
}

#endif
