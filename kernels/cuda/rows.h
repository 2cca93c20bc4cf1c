/* Rows of a value, a warp for each row: for kernels that read the elements of a row several times
 * or add them up. */
#ifndef MPTL_KERNELS_CUDA_ROWS_H
#define MPTL_KERNELS_CUDA_ROWS_H

#include "kernels/cuda/elements.h"

namespace mptl_rows {

enum { ROW_WARPS = 4, ROW_THREADS = 32 * ROW_WARPS };
enum { COPIED = 1024 }; /* the longest rows that are copied to shared memory, in elements */

MPTL_DEVICE size_t first_row(void) { return (size_t)blockIdx.x * ROW_WARPS + threadIdx.x / 32; }
MPTL_DEVICE size_t row_stride(void) { return (size_t)gridDim.x * ROW_WARPS; }

static inline unsigned blocks_of(size_t rows) {
  return mptl_blocks_of((rows + ROW_WARPS - 1) / ROW_WARPS);
}

/* ---- Rows in shared memory: read once, eight elements for each lane and turn ---- */

/* Floats that the copy of a row takes; 0: rows are too long, and kernels read them from global
 * memory. */
static inline size_t copy_floats(size_t length) {
  return length > COPIED ? 0 : mptl_vectors(length) * MPTL_WIDE;
}

/* The warp's copy number k of `copies`; NULL: rows are not copied. */
MPTL_DEVICE float *copy_of(float *shared, size_t floats, unsigned copies, unsigned k) {
  return floats == 0 ? NULL : shared + (threadIdx.x / 32 * copies + k) * floats;
}

/* Copies a row, unless copy is NULL. All lanes call. */
MPTL_DEVICE void copy_row(float *copy, const mptl_source_arg &x, size_t row, size_t length) {
  if (copy == NULL) return;
  __syncwarp(); /* all lanes have read the row before */
  for (size_t i = mptl_lane() * MPTL_WIDE; i < length; i += 32 * MPTL_WIDE) {
    float values[MPTL_WIDE];
    mptl_read_wide(values, x, row + i, mptl_count_at(i, length));
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++) copy[i + k] = values[k];
  }
  __syncwarp();
}

MPTL_DEVICE float element(const float *copy, const mptl_source_arg &x, size_t row, size_t i) {
  return copy != NULL ? copy[i] : mptl_read_one(x, row + i);
}

/* Adds the lanes' numbers in a fixed order, and returns the sum in all lanes. */
MPTL_DEVICE double sum_of_lanes(double x) {
  for (unsigned d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

}  // namespace mptl_rows

#endif
