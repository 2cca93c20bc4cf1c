/* Channels that convolutions are multiplied with: where the library has no engine for so many, or a slow one, more, the others zeros. */
#ifndef MPTL_BACKEND_CUDA_CHANNELS_H
#define MPTL_BACKEND_CUDA_CHANNELS_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* The convolution with the channels that its passes are to be multiplied with. Those that are added are zeros in the operands, add
 * nothing to any sum, and are dropped from the result. */
mptl_conv_shape mptl_cuda_filled_up(mptl_conv_shape shape, mptl_cuda_type first, mptl_cuda_type second);

#endif
