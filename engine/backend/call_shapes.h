/* From a call's graph and attributes to the shapes that the libraries and kernels of every backend get. */
#ifndef MPTL_BACKEND_CALL_SHAPES_H
#define MPTL_BACKEND_CALL_SHAPES_H

#include "backend/backend.h"
#include "backend/shapes.h"
#include "kernels/pool.h"

/* The input as it is in memory: a flattened image stays in NHWC; a linear layer's weights [out][c*h*w] are then read as [out][c][h][w]. */
MPTL_API mptl_shape mptl_call_input_shape(const mptl_call *call);

/* A convolution's groups; 1 of a linear layer. */
MPTL_API int mptl_call_groups(const mptl_call *call);

/* One of the two, by the operator's kind. */
typedef struct mptl_call_shape {
  bool is_linear;
  mptl_linear_shape linear;
  mptl_conv_shape conv;
} mptl_call_shape;

/* Of n images, with ic input and oc output channels: the call's own, or multiples of them for operands that are repeated. */
MPTL_API mptl_call_shape mptl_call_shape_of(const mptl_call *call, int n, int ic, int oc);

/* Of an avgpool, mean or maxpool. */
MPTL_API mptl_pool mptl_call_pool(const mptl_call *call);

#endif
