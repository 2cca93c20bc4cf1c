/* Measures that are more than a count: how much a gradient, and the update that an optimizer makes
 * with it, differ from a reference (method.md 5.8). */
#ifndef MPTL_COMPARE_H
#define MPTL_COMPARE_H

#include "mptl/program.h"

/* The arrays of a parameter, in the host's memory, with n elements each. */
typedef struct mptl_gradients {
  size_t n;
  const float *parameter;              /* the master */
  const float *state[MPTL_MAX_STATES]; /* of the optimizer, before the update */
  const float *gradient;               /* still multiplied by the update's loss scale */
  const float *reference;              /* the gradient to compare with, at loss scale 1 */
} mptl_gradients;

/* For a vector x and its reference: |reference|_1 and |x - reference|_1, summed in binary64, in
 * order. */
typedef struct mptl_difference {
  double size, absolute;
} mptl_difference;

/* Compares the gradients, and the directions of the updates that mptl_model_update would make with
 * them, in the arithmetic of kernels/optimizers.h, without clipping. group: the parameter group;
 * updates: how many were made before. */
MPTL_API mptl_status mptl_compare_gradients(const mptl_gradients *gradients, const mptl_optimizer *optimizer,
                                            const mptl_update *update, int group, int64_t updates, mptl_difference *in_gradient,
                                            mptl_difference *in_update);

#endif
