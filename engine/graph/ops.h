/* The rows of the operator table, and what their infer functions share (graph.c). */
#ifndef MPTL_GRAPH_OPS_H
#define MPTL_GRAPH_OPS_H

#include "mptl/graph.h"

#define MPTL_DECLARE_ROW(name, NAME) extern const mptl_op_kind mptl_op_##name;
MPTL_OPERATORS(MPTL_DECLARE_ROW)
#undef MPTL_DECLARE_ROW

/* Writes a shape as "64x32x32" to text (at least 40 bytes), and returns text: for messages. */
const char *mptl_shape_print(mptl_shape shape, char *text);

/* Fails with MPTL_EINVAL unless the operator's i-th input has ndim dimensions (1 or 3). */
mptl_status mptl_expect_ndim(const mptl_graph *graph, const mptl_op *op, int i, int ndim);

/* Fails with MPTL_EINVAL if the operator's i-th input is a flattened image, for operators that read
 * features side by side in memory. */
mptl_status mptl_expect_channels(const mptl_graph *graph, const mptl_op *op, int i);

/* Sets *out to the output size of a window along one axis (0: height, 1: width), rounded down as in
 * PyTorch. Fails with MPTL_EINVAL if the window does not fit into the padded input. */
mptl_status mptl_window_size(int *out, const mptl_op *op, int in, int axis);

#endif
