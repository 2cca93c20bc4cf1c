/* Kernels of batch norm. isa/norm.c is compiled once per instruction set; all give the same bits.
 *
 * [rows][c] is a part of an NHWC value: rows pixels of c channels each, without gaps. Vectors by
 * channel have c binary32 numbers. Results must not overlap operands.
 */
#ifndef MPTL_KERNELS_CPU_NORM_H
#define MPTL_KERNELS_CPU_NORM_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/round.h"

/* An operand [rows][c]: binary32 if rounder is NULL, else codes of 8 bits that `reads` accepts. */
typedef struct mptl_pixels {
  const void *data;
  const mptl_rounder *rounder;
} mptl_pixels;

typedef struct mptl_norm_kernels {
  /* Whether the kernels below read these n codes of any format: faster than decoded ones, since they
   * stay in registers. */
  bool (*reads)(const void *codes, size_t n, const mptl_rounder *rounder);

  /* Over all rows: sum[c] += x - centre[c]; sum2[c] += (x - centre[c])^2 */
  void (*moments)(float *sum, float *sum2, mptl_pixels x, const float *centre, size_t rows,
                  size_t c);
  /* y = x * factor[c] + term[c] */
  void (*normalize)(float *y, mptl_pixels x, const float *factor, const float *term, size_t rows,
                    size_t c);

  /* Backward, dy and x are both in binary32 or both in codes.
   * sum_dy[c] += dy; sum_dyx[c] += dy * (x - mean[c]) */
  void (*backward_sums)(float *sum_dy, float *sum_dyx, mptl_pixels dy, mptl_pixels x,
                        const float *mean, size_t rows, size_t c);
  /* dx = (dy - a[c] - (x - mean[c]) * b[c]) * factor[c] */
  void (*normalize_backward)(float *dx, mptl_pixels dy, mptl_pixels x, const float *mean,
                             const float *a, const float *b, const float *factor, size_t rows,
                             size_t c);
} mptl_norm_kernels;

/* The kernels of the instruction set in use. */
MPTL_API const mptl_norm_kernels *mptl_norm(void);

#endif
