/* The GEMM operators, conv2d and linear: shapes and parameters. */
#include <math.h>

#include "graph/ops.h"

/* PyTorch's initial values of weights and biases: uniform between -1/sqrt(fan_in) and
 * 1/sqrt(fan_in). */
static mptl_init default_init(size_t fan_in) {
  double bound = 1.0 / sqrt((double)fan_in);
  return (mptl_init){MPTL_INIT_UNIFORM, -bound, bound};
}

static mptl_status add_weight_and_bias(mptl_graph *g, mptl_op *op, int ndim, const int64_t *dims) {
  size_t fan_in = 1;
  for (int i = 1; i < ndim; i++) fan_in *= (size_t)dims[i];
  MPTL_TRY(mptl_graph_add_param(g, op, "weight", false, ndim, dims, default_init(fan_in)));
  if (op->attr.bias)
    MPTL_TRY(mptl_graph_add_param(g, op, "bias", false, 1, dims, default_init(fan_in)));
  return MPTL_OK;
}

static mptl_status infer_conv2d(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  const mptl_attributes *a = &op->attr;
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 3));
  mptl_shape in = mptl_input_shape(g, op, 0);
  if (a->out < 1) return mptl_fail(MPTL_EINVAL, "out (output channels) must be given");
  if (in.c % a->groups != 0 || a->out % a->groups != 0)
    return mptl_fail(MPTL_EINVAL, "groups: %d, must divide the %d input and the %d output channels",
                     a->groups, in.c, a->out);
  *out = (mptl_shape){.ndim = 3, .c = a->out};
  MPTL_TRY(mptl_window_size(&out->h, op, in.h, 0));
  MPTL_TRY(mptl_window_size(&out->w, op, in.w, 1));
  return add_weight_and_bias(g, op, 4,
                             (int64_t[]){a->out, in.c / a->groups, a->kernel[0], a->kernel[1]});
}

static mptl_status infer_linear(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 1));
  if (op->attr.out < 1) return mptl_fail(MPTL_EINVAL, "out (output features) must be given");
  *out = (mptl_shape){.ndim = 1, .c = op->attr.out, .h = 1, .w = 1};
  return add_weight_and_bias(g, op, 2, (int64_t[]){op->attr.out, mptl_input_shape(g, op, 0).c});
}

const mptl_op_kind mptl_op_conv2d = {
    .id = MPTL_OP_CONV2D,
    .name = "conv2d",
    .n_in = 1,
    .gemm = true,
    .backward_reads_in = true,
    .infer = infer_conv2d,
    .attributes = (const char *const[]){"out", "kernel", "stride", "padding", "dilation", "groups",
                                        "bias", NULL},
};

const mptl_op_kind mptl_op_linear = {
    .id = MPTL_OP_LINEAR,
    .name = "linear",
    .n_in = 1,
    .gemm = true,
    .backward_reads_in = true,
    .infer = infer_linear,
    .attributes = (const char *const[]){"out", "bias", NULL},
};
