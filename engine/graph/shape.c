/* Operators that combine and divide channels: concat, slice. */
#include "graph/ops.h"

static mptl_status infer_concat(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  mptl_shape first = mptl_input_shape(g, op, 0);
  *out = (mptl_shape){.ndim = first.ndim, .h = first.h, .w = first.w};
  for (int i = 0; i < op->n_in; i++) {
    mptl_shape in = mptl_input_shape(g, op, i);
    char a[40], b[40];
    MPTL_TRY(mptl_expect_channels(g, op, i));
    if (in.ndim != first.ndim || in.h != first.h || in.w != first.w)
      return mptl_fail(MPTL_EINVAL,
                       "inputs of shapes %s and %s, must be equal except for the channels",
                       mptl_shape_print(first, a), mptl_shape_print(in, b));
    out->c += in.c;
  }
  if (out->c % op->attr.shuffle != 0)
    return mptl_fail(MPTL_EINVAL, "shuffle: %d channel groups, must divide the %d channels",
                     op->attr.shuffle, out->c);
  return MPTL_OK;
}

static mptl_status infer_slice(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  const mptl_attributes *a = &op->attr;
  MPTL_TRY(mptl_expect_channels(g, op, 0));
  *out = mptl_input_shape(g, op, 0);
  if (a->count < 1) return mptl_fail(MPTL_EINVAL, "count (of channels) must be given");
  if (a->first + a->count > out->c)
    return mptl_fail(MPTL_EINVAL, "channels %d to %d, the input has 0 to %d", a->first,
                     a->first + a->count - 1, out->c - 1);
  out->c = a->count;
  return MPTL_OK;
}

/* The first channel of the slice that has that input. */
static int first_channel(const mptl_graph *g, int reader) {
  return g->ops[mptl_reader_op(reader)].attr.first;
}

/* Walks from slice to slice: each begins with the channel after the last one of the slice before.
 * The search for the next slice begins behind the slice before, since slices are usually made in
 * the order of their channels, and goes once around the list of readers. */
bool mptl_graph_shared_out(const mptl_graph *g, int op) {
  int channels = g->values[g->ops[op].out].shape.c, readers = 0, found = 0;
  int first_reader = g->ops[op].first_reader, r = first_reader;
  for (int i = first_reader; i >= 0; i = mptl_next_reader(g, i), readers++)
    if (g->ops[mptl_reader_op(i)].kind != &mptl_op_slice) return false;
  for (int first = 0; first < channels; found++) {
    int tried = 0;
    for (; tried < readers && first_channel(g, r) != first; tried++) {
      r = mptl_next_reader(g, r);
      if (r < 0) r = first_reader;
    }
    if (tried == readers) return false;
    first += g->ops[mptl_reader_op(r)].attr.count;
  }
  return found == readers;
}

const mptl_op_kind mptl_op_concat = {
    .id = MPTL_OP_CONCAT,
    .name = "concat",
    .n_in = MPTL_SEVERAL,
    .follows_inputs = true,
    .infer = infer_concat,
    .attributes = (const char *const[]){"shuffle", NULL},
};

const mptl_op_kind mptl_op_slice = {
    .id = MPTL_OP_SLICE,
    .name = "slice",
    .n_in = 1,
    .follows_inputs = true,
    .infer = infer_slice,
    .attributes = (const char *const[]){"first", "count", NULL},
};
