/* With how many channels convolutions are multiplied: more than they have where the library has no engine, or
 * a slow one, for that number. */
#ifndef MPTL_BACKEND_CUDA_CHANNELS_H
#define MPTL_BACKEND_CUDA_CHANNELS_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* The convolution with the channels that its passes are multiplied with. Added channels are zeros in the
 * operands, add nothing to any sum, and are dropped from the result. */
mptl_conv_shape mptl_cuda_filled_up(mptl_conv_shape shape, mptl_cuda_type first, mptl_cuda_type second);

#endif
