/* Sums by channel over the rows of an array [rows][c], in an order that rows and c alone decide: blocks of threads take pieces of the rows for
 * up to 256 channels, each thread some rows of one channel, in binary32 for 64 of them at a time and in binary64 above that; a second
 * kernel adds the pieces. */
#ifndef MPTL_KERNELS_CUDA_CHANNELS_H
#define MPTL_KERNELS_CUDA_CHANNELS_H

#include "kernels/cuda/values.h"

enum { MPTL_FLUSH = 64, MPTL_PIECES = 128 };

typedef struct mptl_sums_shape {
  size_t rows;
  unsigned c, tile, pieces; /* channels; those of a block, a power of two; pieces of the rows */
} mptl_sums_shape;

static inline mptl_sums_shape mptl_sums_shape_of(size_t rows, size_t c) {
  mptl_sums_shape s = {rows, (unsigned)c, 1, 1};
  while (s.tile < MPTL_THREADS && s.tile < c) s.tile *= 2;
  size_t pieces = rows * s.tile / (MPTL_THREADS * MPTL_FLUSH);
  s.pieces = (unsigned)(pieces < 1 ? 1 : pieces > MPTL_PIECES ? (size_t)MPTL_PIECES : pieces);
  return s;
}

static inline dim3 mptl_sums_grid(const mptl_sums_shape *s) { return dim3(s->pieces, (s->c + s->tile - 1) / s->tile); }

/* Partial sums of so many kinds: [pieces][kinds][c] in binary64. */
static inline size_t mptl_sums_bytes(const mptl_sums_shape *s, size_t kinds) {
  return (size_t)s->pieces * kinds * s->c * sizeof(double);
}

/* This thread's channel; c or more: it has none. */
MPTL_DEVICE unsigned mptl_sums_channel(const mptl_sums_shape &s) { return blockIdx.y * s.tile + threadIdx.x % s.tile; }

/* This thread's rows are begin, begin + step, ... below end. */
typedef struct mptl_sums_rows {
  size_t begin, end, step;
} mptl_sums_rows;

MPTL_DEVICE mptl_sums_rows mptl_rows_of(const mptl_sums_shape &s) {
  size_t piece = (s.rows + s.pieces - 1) / s.pieces, begin = blockIdx.x * piece;
  mptl_sums_rows r = {begin + threadIdx.x / s.tile, begin + piece < s.rows ? begin + piece : s.rows, MPTL_THREADS / s.tile};
  return r;
}

/* Adds the threads' sums of one kind and stores the piece's; all threads of the block call. shared: MPTL_THREADS of them. */
MPTL_DEVICE void mptl_store_piece(const mptl_sums_shape &s, double *partial, unsigned kinds, unsigned kind, double sum,
                                  double *shared) {
  shared[threadIdx.x] = sum;
  __syncthreads();
  unsigned channel = mptl_sums_channel(s);
  if (threadIdx.x < s.tile && channel < s.c) {
    double total = 0;
    for (unsigned t = threadIdx.x; t < MPTL_THREADS; t += s.tile) total += shared[t];
    partial[((size_t)blockIdx.x * kinds + kind) * s.c + channel] = total;
  }
  __syncthreads();
}

/* The sum of all pieces. */
MPTL_DEVICE double mptl_total(const mptl_sums_shape &s, const double *partial, unsigned kinds, unsigned kind, unsigned channel) {
  double total = 0;
  for (unsigned p = 0; p < s.pieces; p++) total += partial[((size_t)p * kinds + kind) * s.c + channel];
  return total;
}

#endif
