/* What dnn_conv.c and dnn_linear.c hand to dnn.c: an operator in oneDNN's terms. */
#ifndef MPTL_BACKEND_CPU_DNN_OP_H
#define MPTL_BACKEND_CPU_DNN_OP_H

#include "backend/cpu/dnnl_compat.h"

/* Logical dimensions in oneDNN's order (n, c, h, w; groups first in grouped weights) and the tags of their memory order. */
typedef struct mptl_dnn_problem {
  mptl_shape_name name;
  int x_ndims, weights_ndims, y_ndims;
  dnnl_dims_t x, weights, y;
  dnnl_format_tag_t x_tag, weights_tag, y_tag;
  bool bias;               /* of y[1] elements */
  bool windowed;           /* a convolution; else an inner product */
  mptl_dnnl_window window; /* if windowed */
} mptl_dnn_problem;

/* threads: at least 1. */
mptl_status mptl_dnn_create(mptl_dnn **op, int threads, const mptl_dnn_problem *problem, const mptl_compute compute[MPTL_PASSES]);

#endif
