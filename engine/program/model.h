/* Functions of models that programs and comparisons use. */
#ifndef MPTL_PROGRAM_MODEL_H
#define MPTL_PROGRAM_MODEL_H

#include "mptl/program.h"

/* Allocates the model's gradients and optimizer state, all zeros, unless it has them. Lists its
 * trained parameters for the device. */
mptl_status mptl_model_prepare_training(mptl_model *model);

/* Computes the factors that the update kernel takes, for each parameter group of the update:
 * factors[update->n_groups]. updates: how many were made before. Fails with MPTL_EINVAL if the loss
 * scale, the number of groups or a setting is not accepted. */
mptl_status mptl_update_factors(mptl_factors *factors, const mptl_optimizer *optimizer,
                                const mptl_update *update, int64_t updates);

#endif
