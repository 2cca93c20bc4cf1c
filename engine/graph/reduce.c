/* Operators that make their input smaller: avgpool, nll_loss. */
#include "graph/ops.h"

static mptl_status infer_avgpool(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 3));
  mptl_shape in = mptl_input_shape(g, op, 0);
  *out = (mptl_shape){.ndim = 3, .c = in.c};
  MPTL_TRY(mptl_window_size(&out->h, op, in.h, 0));
  return mptl_window_size(&out->w, op, in.w, 1);
}

/* One loss a sample; the batch's loss is their mean. Labels come with the batch. */
static mptl_status infer_nll_loss(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 1));
  *out = (mptl_shape){.ndim = 1, .c = 1, .h = 1, .w = 1};
  return MPTL_OK;
}

const mptl_op_kind mptl_op_avgpool = {
    .name = "avgpool",
    .n_in = 1,
    .follows_inputs = true,
    .infer = infer_avgpool,
    .attributes = (const char *const[]){"kernel", "stride", NULL},
};

const mptl_op_kind mptl_op_nll_loss = {.name = "nll_loss", .n_in = 1, .infer = infer_nll_loss};
