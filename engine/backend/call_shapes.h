/* The shapes of a call, in the form that the libraries and kernels of all backends take. */
#ifndef MPTL_BACKEND_CALL_SHAPES_H
#define MPTL_BACKEND_CALL_SHAPES_H

#include "backend/backend.h"
#include "backend/shapes.h"
#include "kernels/pool.h"

/* The shape of a linear layer or of a convolution. */
typedef struct mptl_call_shape {
  bool is_linear;
  mptl_linear_shape linear;
  mptl_conv_shape conv;
} mptl_call_shape;

/* The shape for n images, ic input and oc output channels. They are the call's numbers, or
 * multiples of them for operands that are repeated (cpu/gemm.h). */
MPTL_API mptl_call_shape mptl_call_shape_of(const mptl_call *call, int n, int ic, int oc);

/* The sizes and settings of a loss. */
MPTL_API mptl_loss_shape mptl_call_loss(const mptl_call *call);

/* The sizes and the window of an avgpool, mean or maxpool. */
MPTL_API mptl_pool mptl_call_pool(const mptl_call *call);

#endif
