/* Adds channels to convolutions for whose number of channels the library has no engine, or a slow
 * one. */
#ifndef MPTL_BACKEND_CUDA_CHANNELS_H
#define MPTL_BACKEND_CUDA_CHANNELS_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* Returns the convolution with added channels. They are zeros in the operands, change no sum, and
 * are removed from the result. */
mptl_conv_shape mptl_cuda_filled_up(mptl_conv_shape shape, mptl_cuda_type first,
                                    mptl_cuda_type second);

#endif
