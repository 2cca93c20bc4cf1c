/* For programs: what a model needs for training. */
#ifndef MPTL_PROGRAM_MODEL_H
#define MPTL_PROGRAM_MODEL_H

#include "mptl/program.h"

/* Gives the model its gradients and its optimizer's state, zero, unless it has them. */
mptl_status mptl_model_prepare_training(mptl_model *model);

/* The kernel's factors of each parameter group. Fails where a setting is out of its range. */
mptl_status mptl_update_factors(mptl_factors *factors, const mptl_optimizer *optimizer, const mptl_update *update,
                                int64_t updates);

#endif
