/* Compares gradients, and the updates that an optimizer makes of them, with references: the
 * gradient error of method.md 5.8. */
#ifndef MPTL_COMPARE_H
#define MPTL_COMPARE_H

#include "mptl/program.h"

/* A parameter's arrays of n elements each, in the host's memory. */
typedef struct mptl_gradients {
  size_t n;
  const float *parameter;              /* the master */
  const float *state[MPTL_MAX_STATES]; /* the optimizer's, before the update; NULL: zeros */
  const float *gradient;               /* still multiplied by the update's loss scale */
  const float *reference;              /* the reference gradient, with loss scale 1 */
} mptl_gradients;

/* The difference of a vector x from its reference r, as sums of magnitudes: size is |r|_1, absolute
 * is |x - r|_1. Added in binary64, in order. */
typedef struct mptl_difference {
  double size, absolute;
} mptl_difference;

/* Compares the gradients, and the directions (kernels/optimizers.h) of the updates that
 * mptl_model_update would make of them without clipping. group: the parameter's parameter group.
 * updates: how many were made before. Changes no array. Fails with MPTL_EINVAL if the group or a
 * setting is not accepted. */
MPTL_API mptl_status mptl_compare_gradients(const mptl_gradients *gradients,
                                            const mptl_optimizer *optimizer,
                                            const mptl_update *update, int group, int64_t updates,
                                            mptl_difference *in_gradient,
                                            mptl_difference *in_update);

#endif
