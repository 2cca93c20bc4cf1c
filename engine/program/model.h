/* For programs: what a model needs for training. */
#ifndef MPTL_PROGRAM_MODEL_H
#define MPTL_PROGRAM_MODEL_H

#include "mptl/program.h"

/* Gives the model its gradients and momentum buffers, zero, unless it has them. */
mptl_status mptl_model_prepare_training(mptl_model *model);

#endif
