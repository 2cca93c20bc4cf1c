/* Operators that put channels together and take them apart: concat, slice. */
#include "graph/ops.h"

/* A flattened image is in memory as it was, pixel by pixel: its features are not where a flat value's are. */
static mptl_status expect_channels(const mptl_graph *g, const mptl_op *op, int i) {
  mptl_shape in = mptl_input_shape(g, op, i), base = g->values[g->values[op->in[i]].base].shape;
  if (in.ndim == 1 && base.h * base.w > 1) return mptl_fail(MPTL_EINVAL, "input %d is a flattened image: flatten it later", i);
  return MPTL_OK;
}

static mptl_status infer_concat(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  mptl_shape first = mptl_input_shape(g, op, 0);
  *out = (mptl_shape){.ndim = first.ndim, .h = first.h, .w = first.w};
  for (int i = 0; i < op->n_in; i++) {
    mptl_shape in = mptl_input_shape(g, op, i);
    char a[40], b[40];
    MPTL_TRY(expect_channels(g, op, i));
    if (in.ndim != first.ndim || in.h != first.h || in.w != first.w)
      return mptl_fail(MPTL_EINVAL, "inputs of shapes %s and %s, must be equal but for the channels", mptl_shape_print(first, a),
                       mptl_shape_print(in, b));
    out->c += in.c;
  }
  if (out->c % op->attr.shuffle != 0)
    return mptl_fail(MPTL_EINVAL, "shuffle: %d groups, must divide the %d channels", op->attr.shuffle, out->c);
  return MPTL_OK;
}

static mptl_status infer_slice(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  const mptl_attributes *a = &op->attr;
  MPTL_TRY(expect_channels(g, op, 0));
  *out = mptl_input_shape(g, op, 0);
  if (a->count < 1) return mptl_fail(MPTL_EINVAL, "count (of channels) must be given");
  if (a->first + a->count > out->c)
    return mptl_fail(MPTL_EINVAL, "channels %d to %d, the input has 0 to %d", a->first, a->first + a->count - 1, out->c - 1);
  out->c = a->count;
  return MPTL_OK;
}

const mptl_op_kind mptl_op_concat = {
    .name = "concat",
    .n_in = MPTL_SEVERAL,
    .follows_inputs = true,
    .infer = infer_concat,
    .attributes = (const char *const[]){"shuffle", NULL},
};

const mptl_op_kind mptl_op_slice = {
    .name = "slice",
    .n_in = 1,
    .follows_inputs = true,
    .infer = infer_slice,
    .attributes = (const char *const[]){"first", "count", NULL},
};
