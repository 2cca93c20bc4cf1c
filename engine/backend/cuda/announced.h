/* Announced passes of convolutions: passes that will be created soon. From a list of them, a
 * library can prepare several at the same time. */
#ifndef MPTL_BACKEND_CUDA_ANNOUNCED_H
#define MPTL_BACKEND_CUDA_ANNOUNCED_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

typedef struct mptl_cuda_announced {
  mptl_conv_shape shape;
  mptl_pass pass;
  mptl_cuda_choices choices;
} mptl_cuda_announced;

#endif
