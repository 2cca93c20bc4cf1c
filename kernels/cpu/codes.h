/* Operators on codes: a ReLU needs only the sign of a value, so that packed values need not be
 * decoded for it. isa/codes.c is compiled once per instruction set.
 *
 * Codes have at most 16 bits, 8 or 16 in memory. A code without its sign bit grows with the value's
 * magnitude, up to max_code of the rounder; above it are infinity and NaN.
 */
#ifndef MPTL_KERNELS_CPU_CODES_H
#define MPTL_KERNELS_CPU_CODES_H

#include <stddef.h>

#include "kernels/round.h"

typedef struct mptl_code_kernels {
  /* Returns the largest of n codes without their signs. */
  uint32_t (*largest)(const void *codes, size_t n, const mptl_rounder *r);

  /* Writes 0 for negative codes, which must not be NaN. Returns the largest code that is left. */
  uint32_t (*relu)(void *codes, size_t n, const mptl_rounder *r);

  /* dx = dy, or 0 where y <= 0. The codes of both formats have the same size in memory. Returns the
   * largest code of dx without its sign. */
  uint32_t (*relu_backward)(void *dx, const void *dy, const mptl_rounder *of_dy, const void *y,
                            const mptl_rounder *of_y, size_t n);

  /* The same for gradients in binary32. */
  void (*relu_backward_f32)(float *dx, const float *dy, const void *y, const mptl_rounder *of_y,
                            size_t n);
} mptl_code_kernels;

/* The kernels of the instruction set in use. */
MPTL_API const mptl_code_kernels *mptl_codes(void);

#endif
