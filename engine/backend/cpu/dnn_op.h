/* An operator in the terms of oneDNN: dnn_conv.c and dnn_linear.c describe it, dnn.c creates it. */
#ifndef MPTL_BACKEND_CPU_DNN_OP_H
#define MPTL_BACKEND_CPU_DNN_OP_H

#include "backend/cpu/dnnl_compat.h"

/* Logical dimensions in oneDNN's order (n, c, h, w; weights with channel groups have these first),
 * and tags with the order in memory. */
typedef struct mptl_dnn_problem {
  mptl_shape_name name;
  int x_ndims, weights_ndims, y_ndims;
  dnnl_dims_t x, weights, y;
  dnnl_format_tag_t x_tag, weights_tag, y_tag;
  bool bias;               /* whether there is one, of y[1] elements */
  bool windowed;           /* a convolution; else an inner product */
  mptl_dnnl_window window; /* if windowed */
} mptl_dnn_problem;

/* See mptl_dnn_conv_create. */
mptl_status mptl_dnn_create(mptl_dnn **op, int threads, const mptl_dnn_problem *problem,
                            const mptl_compute compute[MPTL_PASSES]);

#endif
