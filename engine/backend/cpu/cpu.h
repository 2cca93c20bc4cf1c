/* Inside the CPU backend: the functions of each operator, and how operators read and write values.
 *
 * Pointwise operators run in tiles, pieces of an array that fit the first cache levels: a tile is
 * read (decoded), computed, rounded, counted and stored (encoded) before the next one. Such
 * operators give functions for one tile, and fused.c runs a stage of them. Other operators read and
 * write their values themselves.
 */
#ifndef MPTL_BACKEND_CPU_H
#define MPTL_BACKEND_CPU_H

#include "backend/backend.h"

enum {
  MPTL_TILE = 2048,    /* elements */
  MPTL_STAGE_OPS = 64, /* most operators of a stage, whose calls are on the stack */
};

/* ---- Operators ---- */

/* Values as codes of at most 16 bits, all of one format. */
typedef struct mptl_code_tile {
  const void *codes; /* NULL: there are none */
  const mptl_rounder *rounder;
  uint32_t largest; /* of the codes without their signs */
} mptl_code_tile;

/* A tile of a pointwise operator: elements [offset, offset + n) of its output, in buffers of n
 * elements. */
typedef struct mptl_tile {
  size_t offset, n;
  const float *x[MPTL_MAX_INPUTS]; /* rounded inputs; backward: only if backward_reads_in */
  float *y; /* forward: the unrounded output; backward: the rounded one, if backward_reads_out */
  mptl_code_tile y_codes; /* backward: instead of y, if backward_codes is set and y is in codes */
  const float *dy;        /* backward */
  /* Instead of x[0], or of x[0] and dy, if reads_codes is set and they are in codes. */
  mptl_code_tile x_codes, dy_codes;
  float *dx[MPTL_MAX_INPUTS]; /* backward: unrounded gradients; NULL: not wanted */
} mptl_tile;

/* The functions of a pointwise operator. If it needs sums over the batch by channel (batch norm),
 * forward_sums and backward_sums add those of a tile to sums[2][channels], and forward_begin and
 * backward_begin then get the totals. The inputs of an operator with forward_sums are in memory,
 * not results of its stage. */
typedef struct mptl_pointwise {
  void (*forward)(const mptl_call *call, const mptl_tile *tile);
  void (*backward)(const mptl_call *call, const mptl_tile *tile);

  /* Whether the operator takes n codes of its input, and of its input and dy in backward (the sums
   * likewise), instead of binary32. NULL: never. */
  bool (*reads_codes)(const mptl_code_tile *codes, size_t n);

  bool backward_selects;      /* an element of a gradient is that element of dy, or 0 */
  bool backward_reads_either; /* MPTL_READS_EITHER of kernels/pointwise.h */

  /* The same on codes, where all formats are the same (in backward, y may have another one). NULL:
   * the operator works on binary32 only. forward_codes turns codes of finite inputs into those of
   * the output, in place, and returns the largest one without its sign. backward_codes writes the
   * gradient of each input to buffer, n elements; it may be NaN or infinite. dy->largest and
   * y->largest are not set. */
  uint32_t (*forward_codes)(void *codes, size_t n, const mptl_rounder *rounder);
  mptl_code_tile (*backward_codes)(const mptl_code_tile *dy, const mptl_code_tile *y, size_t n,
                                   void *buffer);

  mptl_status (*forward_before_sums)(
      const mptl_call *call); /* only in training; NULL: nothing to do */
  void (*forward_sums)(const mptl_call *call, const mptl_tile *tile,
                       float *sums); /* only in training; NULL: none */
  void (*backward_sums)(const mptl_call *call, const mptl_tile *tile, float *sums); /* NULL: none */
  mptl_status (*forward_begin)(
      const mptl_call *call,
      const double *sums); /* NULL: nothing to do; sums: NULL in evaluation */
  mptl_status (*backward_begin)(const mptl_call *call, const double *sums);

  /* At the beginning of backward: makes ready for forward to compute tiles of the output once more.
   * NULL: forward cannot. */
  void (*forward_again)(const mptl_call *call);
} mptl_pointwise;

/* The functions of an operator, see mptl_backend. A call made for create, prepare or scratch_bytes
 * has no addresses yet. */
typedef struct mptl_cpu_op {
  mptl_status (*create)(void **state, const mptl_call *call); /* NULL: no state */
  void (*destroy)(void *state);                               /* NULL: nothing to release */
  mptl_status (*prepare)(const mptl_call *call,
                         size_t *bytes); /* *bytes: of scratch memory; NULL: use scratch_bytes */
  size_t (*scratch_bytes)(const mptl_call *call); /* NULL: 0 */
  const mptl_pointwise *pointwise;                /* NULL: forward and backward are set */
  mptl_status (*forward)(const mptl_call *call);
  mptl_status (*backward)(const mptl_call *call);
} mptl_cpu_op;

#define MPTL_DECLARE_CPU_OP(name, NAME) extern const mptl_cpu_op mptl_cpu_##name;
MPTL_OPERATORS(MPTL_DECLARE_CPU_OP)
#undef MPTL_DECLARE_CPU_OP

/* The table of operators, by id (table.c). */
extern const mptl_cpu_op *const mptl_cpu_ops[MPTL_OP_IDS];

/* Stages of pointwise operators (fused.c): scratch memory, run, and mptl_backend's find_ranges for
 * operator i. */
size_t mptl_fused_scratch_bytes(const mptl_stage *stage);
mptl_status mptl_fused_run(const mptl_stage *stage, const mptl_step *step, bool forward);
mptl_status mptl_fused_find_ranges(const mptl_stage *stage, const mptl_step *step, bool forward,
                                   int i, float *largest);

/* ---- Reading and writing values (access.c) ---- */

/* Returns elements [offset, offset + n) of a value in binary32: their address if they are stored
 * so, else buffer, into which they are decoded. */
const float *mptl_read(const mptl_source *source, size_t offset, size_t n, float *buffer);

/* Writes the same elements to buffer as bf16, which must hold them exactly. */
MPTL_API void mptl_read_bf16(const mptl_source *source, size_t offset, size_t n, uint16_t *buffer);

/* Writes rows of `columns` elements as bf16, which must hold them exactly: the first row from
 * element `offset` on, rows `step` elements apart in the value and to_step apart in `to`. */
MPTL_API void mptl_read_bf16_rows(const mptl_source *source, size_t offset, size_t columns,
                                  size_t step, size_t rows, uint16_t *to, size_t to_step);

/* Whether results can be computed where a sink stores them, and be rounded there. */
static inline bool mptl_stores_floats(const mptl_sink *sink) {
  return sink->size == sizeof(float) && !sink->accumulate;
}

/* Returns where to compute results for a sink from element offset on: the address of the sink's
 * data if the results are stored unchanged, else buffer. */
float *mptl_results(const mptl_sink *sink, size_t offset, float *buffer);

/* Rounds results (and may overwrite them), counts them in stats, and stores them, or adds them,
 * from element offset on. Everything that an operator computes comes here, or to round_buffer in
 * fused_tile.c if it stays within a stage: both count exponents when they are wanted. */
void mptl_write(const mptl_sink *sink, size_t offset, size_t n, float *results,
                mptl_round_stats *stats);

/* mptl_write for results that are values of the sink's format already: their codes. Neither ranges
 * nor exponents are wanted. buffer: for n elements. */
void mptl_write_codes(const mptl_sink *sink, size_t offset, size_t n, const void *codes,
                      float *buffer);

/* Adds the exponents of n values. Any number of threads may call it at the same time. */
void mptl_add_exponents(mptl_exponents *exponents, const float *x, size_t n);

/* Raises stats->max_abs to the largest finite magnitude of n results. */
void mptl_note_largest(mptl_round_stats *stats, const float *results, size_t n);

/* mptl_write for many elements, in parallel; adds to the statistics of the sink. */
void mptl_write_parallel(const mptl_call *call, const mptl_sink *sink, size_t offset, size_t n,
                         float *results);

/* Runs fn for the rows 0 to count - 1 in parallel. Each thread has a buffer of row_floats numbers,
 * in the call's scratch memory, and zeroed statistics for each of the n_sinks sinks (at most
 * MPTL_MAX_INPUTS); at the end these are added to the statistics of the sinks. */
typedef void mptl_row_fn(const mptl_call *call, size_t row, float *buffer, mptl_round_stats *stats);
void mptl_run_rows(const mptl_call *call, size_t count, size_t row_floats, mptl_row_fn *fn,
                   const mptl_sink *sinks, int n_sinks);
size_t mptl_rows_scratch_bytes(const mptl_call *call, size_t row_floats);

/* find_peaks of mptl_backend (peaks.c). */
mptl_status mptl_cpu_find_peaks(mptl_device *device, mptl_peaks *peaks, double seconds);

/* compute of mptl_backend. groups: channel groups. */
const char *mptl_cpu_compute(mptl_device *device, mptl_format a, mptl_format b, int groups,
                             size_t parameters, mptl_compute_setting setting);

/* How many threads run the call's parallel loops. */
static inline int mptl_threads(const mptl_call *call) { return call->device->threads; }

/* Whether the gradient of an input is wanted. */
static inline bool mptl_wanted(const mptl_sink *sink) { return sink->wanted; }

#endif
