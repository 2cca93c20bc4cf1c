/* Measures of training that are more than a count: how a gradient, and the update that an optimizer makes of it, differ from a reference. */
#ifndef MPTL_COMPARE_H
#define MPTL_COMPARE_H

#include "mptl/program.h"

/* A parameter's arrays, in the host's memory, of n elements each. */
typedef struct mptl_gradients {
  size_t n;
  const float *parameter;              /* the master */
  const float *state[MPTL_MAX_STATES]; /* the optimizer's, before the update */
  const float *gradient;               /* still multiplied by the update's loss scale */
  const float *reference;              /* what it is compared with, of loss scale 1 */
} mptl_gradients;

/* Of a vector x and its reference: |reference|_1 and |x - reference|_1, summed in binary64, in order. */
typedef struct mptl_difference {
  double size, absolute;
} mptl_difference;

/* Compares the gradients, and the directions of the updates that mptl_model_update would make of them (kernels/optimizers.h), in its
 * arithmetic, without clipping. group: the parameter's; updates: how many were made before. */
MPTL_API mptl_status mptl_compare_gradients(const mptl_gradients *gradients, const mptl_optimizer *optimizer,
                                            const mptl_update *update, int group, int64_t updates, mptl_difference *in_gradient,
                                            mptl_difference *in_update);

#endif
