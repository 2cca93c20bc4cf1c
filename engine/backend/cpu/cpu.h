/* The CPU backend's inside: one row of functions per operator kind, and how operators read and write values.
 *
 * Element-wise work goes in tiles, pieces of an array that fit the first cache levels: read (decode), compute, round, count and store
 * (encode) in one pass over memory. Pointwise operators give functions for one tile, and fused.c runs a stage of them; the others
 * go over their values themselves.
 */
#ifndef MPTL_BACKEND_CPU_H
#define MPTL_BACKEND_CPU_H

#include "backend/backend.h"

enum { MPTL_TILE = 2048 }; /* elements */

/* ---- Operators ---- */

/* A tile of a pointwise operator: elements [offset, offset + n) of its output, in buffers of n elements. */
typedef struct mptl_tile {
  size_t offset, n;
  const float *x[MPTL_MAX_INPUTS]; /* inputs; backward: only if backward_reads_in */
  float *y;                        /* forward: the unrounded output; backward: the rounded one, if backward_reads_out */
  const float *dy;                 /* backward */
  float *dx[MPTL_MAX_INPUTS];      /* backward: the unrounded gradients, NULL where none is wanted */
} mptl_tile;

/* Functions of a pointwise kind. Where it needs sums over the batch by channel first, the sum functions add a tile's to sums[2][c] and
 * begin gets the totals. Inputs of forward sums are in memory. */
typedef struct mptl_pointwise {
  void (*forward)(const mptl_call *call, const mptl_tile *tile);
  void (*backward)(const mptl_call *call, const mptl_tile *tile);
  bool backward_selects;                                     /* the inputs' gradients are dy's elements, or 0 */
  mptl_status (*forward_before_sums)(const mptl_call *call); /* NULL: nothing to do; only in training */
  void (*forward_sums)(const mptl_call *call, const mptl_tile *tile, float *sums);  /* NULL: none; only in training */
  void (*backward_sums)(const mptl_call *call, const mptl_tile *tile, float *sums); /* NULL: none */
  mptl_status (*forward_begin)(const mptl_call *call, const double *sums); /* NULL: nothing to do; sums NULL in evaluation */
  mptl_status (*backward_begin)(const mptl_call *call, const double *sums);
} mptl_pointwise;

typedef struct mptl_cpu_op {
  mptl_status (*create)(void **state, const mptl_call *call);   /* NULL: it has no state */
  void (*destroy)(void *state);                                 /* NULL: nothing to release */
  mptl_status (*prepare)(const mptl_call *call, size_t *bytes); /* see mptl_backend; NULL: scratch_bytes */
  size_t (*scratch_bytes)(const mptl_call *call);               /* NULL: 0 */
  const mptl_pointwise *pointwise;                              /* NULL: the two functions that follow */
  mptl_status (*forward)(const mptl_call *call);
  mptl_status (*backward)(const mptl_call *call);
} mptl_cpu_op;

#define MPTL_DECLARE_CPU_OP(name, NAME) extern const mptl_cpu_op mptl_cpu_##name;
MPTL_OPERATORS(MPTL_DECLARE_CPU_OP)
#undef MPTL_DECLARE_CPU_OP

/* The table of operators, by id (table.c). */
extern const mptl_cpu_op *const mptl_cpu_ops[MPTL_OP_IDS];

/* A stage of pointwise operators (fused.c): run, and mptl_backend's find_ranges of its operator i. */
size_t mptl_fused_scratch_bytes(const mptl_stage *stage);
mptl_status mptl_fused_run(const mptl_stage *stage, const mptl_step *step, bool forward);
mptl_status mptl_fused_find_ranges(const mptl_stage *stage, const mptl_step *step, bool forward, int i, float *largest);

/* ---- Reading and writing values (access.c) ---- */

/* Elements [offset, offset + n) of a value: where they are, or decoded into buffer. */
const float *mptl_read(const mptl_source *source, size_t offset, size_t n, float *buffer);

/* The same elements as bf16, which holds them exactly. */
void mptl_read_bf16(const mptl_source *source, size_t offset, size_t n, uint16_t *buffer);

/* Where to compute n results for a sink from element offset on: in place where that is all there is to do, else in buffer. */
float *mptl_results(const mptl_sink *sink, size_t offset, float *buffer);

/* Rounds results (which it may overwrite), counts them in stats, and stores or adds them from element offset on. Every value that an
 * operator gives passes here, or where a fused stage keeps it in a buffer: there, too, exponents are counted when they are wanted. */
void mptl_write(const mptl_sink *sink, size_t offset, size_t n, float *results, mptl_round_stats *stats);

/* Adds the exponents of n values, on any number of threads at a time. */
void mptl_add_exponents(mptl_exponents *exponents, const float *x, size_t n);

/* Notes the largest finite magnitude of n results. */
void mptl_note_largest(mptl_round_stats *stats, const float *results, size_t n);

/* mptl_write for many elements, in parallel; counts in the sink's stats. */
void mptl_write_parallel(const mptl_call *call, const mptl_sink *sink, size_t offset, size_t n, float *results);

/* Runs fn over [0, count) rows in parallel. buffer has row_floats for each thread; stats are one for each sink (an operator's inputs
 * at most), and what the threads count is merged into the sinks'. */
typedef void mptl_row_fn(const mptl_call *call, size_t row, float *buffer, mptl_round_stats *stats);
void mptl_run_rows(const mptl_call *call, size_t count, size_t row_floats, mptl_row_fn *fn, const mptl_sink *sinks, int n_sinks);
size_t mptl_rows_scratch_bytes(const mptl_call *call, size_t row_floats);

/* mptl_backend's find_peaks (peaks.c). */
mptl_status mptl_cpu_find_peaks(mptl_device *device, mptl_peaks *peaks, double seconds);

/* mptl_backend's compute. */
const char *mptl_cpu_compute(mptl_device *device, mptl_format a, mptl_format b, int groups, mptl_compute_setting setting);

/* Threads of the call's parallel loops. */
static inline int mptl_threads(const mptl_call *call) { return call->device->threads; }

/* Whether the gradient of an input is wanted. */
static inline bool mptl_wanted(const mptl_sink *sink) { return sink->wanted; }

#endif
