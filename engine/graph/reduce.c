/* Operators that make their input smaller: avgpool, maxpool, mean, and the losses of
 * kernels/losses.h. */
#include "graph/ops.h"
#include "kernels/losses.h"

static mptl_status infer_pool(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 3));
  const mptl_attributes *a = &op->attr;
  for (int i = 0; i < 2; i++)
    if (2 * a->padding[i] > a->kernel[i])
      return mptl_fail(MPTL_EINVAL, "padding: %d, accepted is at most half of the kernel's %d",
                       a->padding[i], a->kernel[i]);
  mptl_shape in = mptl_input_shape(g, op, 0);
  *out = (mptl_shape){.ndim = 3, .c = in.c};
  MPTL_TRY(mptl_window_size(&out->h, op, in.h, 0));
  return mptl_window_size(&out->w, op, in.w, 1);
}

/* The average of each channel: average pooling with a window as large as the image, and a flat
 * output. Sets the attributes that avgpool reads. */
static mptl_status infer_mean(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 3));
  mptl_shape in = mptl_input_shape(g, op, 0);
  op->attr.kernel[0] = op->attr.stride[0] = in.h;
  op->attr.kernel[1] = op->attr.stride[1] = in.w;
  *out = (mptl_shape){.ndim = 1, .c = in.c, .h = 1, .w = 1};
  return MPTL_OK;
}

/* A loss gives one number for each sample; their mean is what training minimises. Targets come with
 * the batch. */
static mptl_status infer_loss(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 1));
  *out = (mptl_shape){.ndim = 1, .c = 1, .h = 1, .w = 1};
  return MPTL_OK;
}

const mptl_op_kind mptl_op_avgpool = {
    .id = MPTL_OP_AVGPOOL,
    .name = "avgpool",
    .n_in = 1,
    .follows_inputs = true,
    .infer = infer_pool,
    .attributes = (const char *const[]){"kernel", "stride", "padding", "count_include_pad", NULL},
};

/* Backward finds each window's maximum again in the input. In usual networks the input is kept in
 * any case, for a relu or a convolution; an index for each output element would need more
 * memory. */
const mptl_op_kind mptl_op_maxpool = {
    .id = MPTL_OP_MAXPOOL,
    .name = "maxpool",
    .n_in = 1,
    .follows_inputs = true,
    .backward_reads_in = true,
    .infer = infer_pool,
    .attributes = (const char *const[]){"kernel", "stride", "padding", NULL},
};

const mptl_op_kind mptl_op_mean = {
    .id = MPTL_OP_MEAN, .name = "mean", .n_in = 1, .follows_inputs = true, .infer = infer_mean};

#define LOSS(kind, NAME, reads_x, by_values)                        \
  const mptl_op_kind mptl_op_##kind = {                             \
      .id = MPTL_OP_##NAME,                                         \
      .name = #kind,                                                \
      .n_in = 1,                                                    \
      .loss = true,                                                 \
      .backward_reads_in = reads_x,                                 \
      .accuracy_by_values = by_values,                              \
      .infer = infer_loss,                                          \
      .attributes = (const char *const[]){"label_smoothing", NULL}, \
  };
MPTL_LOSSES(LOSS)
