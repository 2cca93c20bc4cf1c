/* The rows of the operator table, defined in the files of their families. */
#ifndef MPTL_GRAPH_OPS_H
#define MPTL_GRAPH_OPS_H

#include "mptl/graph.h"

#define MPTL_DECLARE_ROW(name, NAME) extern const mptl_op_kind mptl_op_##name;
MPTL_OPERATORS(MPTL_DECLARE_ROW)
#undef MPTL_DECLARE_ROW

/* Message helper: writes a shape as "64x32x32" to text (at least 40 bytes) and returns it. */
const char *mptl_shape_print(mptl_shape shape, char *text);

/* Fails unless the operator's i-th input has the given number of dimensions (1 or 3). */
mptl_status mptl_expect_ndim(const mptl_graph *graph, const mptl_op *op, int i, int ndim);

/* Fails if the operator's i-th input is a flattened image: for operators that need its channels side by side in memory. */
mptl_status mptl_expect_channels(const mptl_graph *graph, const mptl_op *op, int i);

/* Output length of a window along one axis, PyTorch's floor rule; fails when the window does not fit. */
mptl_status mptl_window_size(int *out, const mptl_op *op, int in, int axis);

#endif
