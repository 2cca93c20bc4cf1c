/* Graphs: networks as data. A graph lists operators in execution order, each with inputs, an
 * output, parameters and attributes.
 *
 * A script records a graph once; assignments (plan.h) and programs (program.h) read it. Shapes are
 * for one sample, in PyTorch's order: (c,h,w), or (f) for flat values. A graph has no batch size; a
 * program has.
 */
#ifndef MPTL_GRAPH_H
#define MPTL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/operators.h"
#include "mptl/status.h"

#define MPTL_MAX_INPUTS 16
#define MPTL_SEVERAL (-1) /* n_in of a kind that takes 1 to MPTL_MAX_INPUTS inputs */

typedef struct mptl_shape {
  int ndim;    /* 3: (c,h,w); 1: (c) with h = w = 1 */
  int c, h, w; /* all positive */
} mptl_shape;

static inline size_t mptl_shape_numel(mptl_shape s) {
  return (size_t)s.c * (size_t)s.h * (size_t)s.w;
}

/* The attributes of all operators: name, type, least and largest accepted value, default. A PAIR is
 * (height, width). An attribute whose default is below the least value must be given. Each kind
 * lists the attributes that it takes. */
#define MPTL_ATTRIBUTES(ROW)                                                                     \
  ROW(out, INTEGER, 1, 1 << 24, 0) /* output channels or features */                             \
  ROW(kernel, PAIR, 1, 1 << 16, 1)                                                               \
  ROW(stride, PAIR, 1, 1 << 16, 1)                                                               \
  ROW(padding, PAIR, 0, 1 << 16, 0)                                                              \
  ROW(dilation, PAIR, 1, 1 << 16, 1)                                                             \
  ROW(groups, INTEGER, 1, 1 << 24, 1) /* channel groups of a convolution */                      \
  ROW(bias, FLAG, 0, 1, 1)                                                                       \
  ROW(count_include_pad, FLAG, 0, 1,                                                             \
      1)                             /* avgpool: whether the average counts padding, as zeros */ \
  ROW(eps, REAL, 0, 1, 1e-5)         /* of norms: PyTorch's meaning */                           \
  ROW(momentum, REAL, 0, 1, 0.1)     /* of norms: PyTorch's meaning */                           \
  ROW(p, REAL, 0, 1, 0.5)            /* dropout: probability that an element becomes zero */     \
  ROW(first, INTEGER, 0, 1 << 24, 0) /* slice: channels [first, first + count) */                \
  ROW(count, INTEGER, 1, 1 << 24, 0)                                                             \
  ROW(shuffle, INTEGER, 1, 1 << 24, 1) /* concat: channel groups of the shuffle of its output */ \
  ROW(label_smoothing, REAL, 0, 1, 0)  /* of losses, see kernels/losses.h */

#define MPTL_ATTRIBUTE_PAIR(name) int name[2]
#define MPTL_ATTRIBUTE_INTEGER(name) int name
#define MPTL_ATTRIBUTE_REAL(name) double name
#define MPTL_ATTRIBUTE_FLAG(name) bool name
#define MPTL_ATTRIBUTE(name, type, min, max, initial) MPTL_ATTRIBUTE_##type(name);
typedef struct mptl_attributes {
  MPTL_ATTRIBUTES(MPTL_ATTRIBUTE)
} mptl_attributes;
#undef MPTL_ATTRIBUTE

typedef enum mptl_init_kind {
  MPTL_INIT_CONSTANT,
  MPTL_INIT_UNIFORM,
  MPTL_INIT_NORMAL
} mptl_init_kind;

/* The initial values of a parameter: the constant a; uniform in [a, b); normal with mean a and
 * standard deviation b. */
typedef struct mptl_init {
  mptl_init_kind kind;
  double a, b;
} mptl_init;

/* A parameter, or a buffer, which is not trained: running statistics. Named as in PyTorch. */
typedef struct mptl_param {
  char *name; /* "layer1.0.conv1.weight" */
  int op;     /* index of its operator */
  bool buffer;
  int ndim;
  int64_t dims[4];
  size_t numel;
  mptl_init init;
} mptl_param;

/* A value: the output of an operator, or a flat view of one.
 *
 * Its layout gives the places of its elements in memory: NHWC, that is, for each sample h rows of w
 * pixels of c features. Layout and shape are equal, except for a flattened image, whose features
 * stay where the image's elements are. Pointwise operators and log_softmax keep the layout of their
 * input. */
typedef struct mptl_value {
  int op;   /* index of its operator */
  int base; /* the value itself; for a view, the value whose memory it shares */
  mptl_shape shape, layout;
} mptl_value;

/* The place in memory of element i of a sample, where i counts in PyTorch's order (channel, row,
 * column); and the inverse, the element at a place. */
static inline size_t mptl_place_of(mptl_shape layout, size_t i) {
  size_t pixels = (size_t)layout.h * (size_t)layout.w;
  return i % pixels * (size_t)layout.c + i / pixels;
}
static inline size_t mptl_index_of(mptl_shape layout, size_t place) {
  size_t channels = (size_t)layout.c;
  return place % channels * ((size_t)layout.h * (size_t)layout.w) + place / channels;
}

typedef struct mptl_op_kind mptl_op_kind;

typedef struct mptl_op {
  const mptl_op_kind *kind;
  char *name; /* the layer path: "layer1.0.conv1" */
  int n_in;
  int in[MPTL_MAX_INPUTS]; /* value ids */
  int out;                 /* value id */
  mptl_attributes attr;

  /* Places in the graph's params. An operator's trained parameters come before its buffers. */
  int first_param, n_param;

  /* The inputs of operators that read the output or a view of it, as a linked list in graph order:
   * numbers of inputs (mptl_reader), -1: none. next_reader[k]: the input after input k in the list
   * of the operator that makes input k. */
  int first_reader, last_reader, next_reader[MPTL_MAX_INPUTS];

  bool marked; /* mptl_graph_mark_output marked the output or a view of it */
} mptl_op;

typedef struct mptl_graph {
  int n_ops, n_values, n_params;
  int loss;     /* index of the loss operator; -1: none yet */
  mptl_op *ops; /* in execution order */
  mptl_value *values;
  mptl_param *params;
  int *names;         /* a hash table of the operators' names: indices of operators, -1: none */
  size_t name_places; /* of the table: a power of two, or 0 */
} mptl_graph;

/* A row of the operator table (engine/graph/op_table.c). */
struct mptl_op_kind {
  mptl_op_id id;
  const char *name;
  int n_in;            /* number of inputs, or MPTL_SEVERAL */
  bool gemm;           /* a GEMM operator, which begins a new group (method.md 3.6) */
  bool follows_inputs; /* policy `amp`: low if all inputs are low */
  bool pointwise; /* an output element depends on that element of the inputs and sums by channel */
  bool keeps_layout; /* the output has the input's layout; pointwise kinds need not say it */
  bool loss;         /* one number for each sample, from its input and targets (kernels/losses.h) */
  bool accuracy_by_values; /* a loss that counts correct samples also if targets are values */
  bool normalises;         /* training needs at least two values for each channel */
  bool backward_reads_in;  /* the backward formula reads the rounded inputs */
  bool backward_reads_out; /* the backward formula reads the rounded output */

  /* How many binary32 vectors forward saves for backward, each with a number for each input
   * channel. */
  int saved_by_channel;

  const char *const *attributes; /* names of its attributes, NULL-terminated; NULL: none */

  /* Checks inputs and attributes, sets the output's shape, adds parameters. Messages get the
   * operator's name from mptl_graph_add. */
  mptl_status (*infer)(mptl_graph *graph, mptl_op *op, mptl_shape *out);
};

MPTL_API mptl_status mptl_graph_create(mptl_graph **graph);
MPTL_API void mptl_graph_destroy(mptl_graph *graph);

/* All attributes with their defaults. */
MPTL_API mptl_attributes mptl_attributes_default(void);

/* Sets an attribute by name; a PAIR takes two numbers (height, width), or one for both. Fails with
 * MPTL_EINVAL if the name is unknown or a value is not accepted. */
MPTL_API mptl_status mptl_attributes_set(mptl_attributes *attributes, const char *name, int count,
                                         const double *values);

/* Finds a kind by name: NULL, with a message that lists the kinds, if there is none. Or by id: NULL
 * beyond the last. */
MPTL_API const mptl_op_kind *mptl_op_kind_find(const char *name);
MPTL_API const mptl_op_kind *mptl_op_kind_at(size_t id);

/* Appends an operator, and sets *value to its output. No two operators may have the same name.
 * attributes NULL: the defaults. Messages begin with the name. */
MPTL_API mptl_status mptl_graph_add(mptl_graph *graph, int *value, const mptl_op_kind *kind,
                                    const char *name, int n_in, const int *inputs,
                                    const mptl_attributes *attributes);

/* Appends the network's input, kind "input": it must be the first operator. */
MPTL_API mptl_status mptl_graph_input(mptl_graph *graph, int *value, mptl_shape shape);

/* Adds a flat view of a value, with the same layout. It is not an operator. */
MPTL_API mptl_status mptl_graph_flatten(mptl_graph *graph, int *value, int of);

/* Marks a value as an output: programs keep it until after the step, as they keep the loss and its
 * inputs. */
MPTL_API mptl_status mptl_graph_mark_output(mptl_graph *graph, int value);

/* Whether an operator makes an output of the graph: a marked value, the loss or an input of the
 * loss. */
MPTL_API bool mptl_graph_is_output(const mptl_graph *graph, int op);

/* Sets the initial values of a parameter, by name. The default is PyTorch's for the layer. */
MPTL_API mptl_status mptl_graph_set_init(mptl_graph *graph, const char *param, mptl_init init);

/* The index of a parameter or buffer, by name; -1: there is none. */
MPTL_API int mptl_graph_find_param(const mptl_graph *graph, const char *name);

/* Whether only slices read an operator's output, and each channel is in exactly one of them. The
 * gradient of the output is not a sum then. */
MPTL_API bool mptl_graph_shared_out(const mptl_graph *graph, int op);

/* The least batch size with which an operator, by index, can be trained. */
MPTL_API int mptl_graph_least_batch(const mptl_graph *graph, int op);

/* The number of elements of an operator's trained parameters. */
static inline size_t mptl_trained_elements(const mptl_graph *graph, const mptl_op *op) {
  size_t n = 0;
  for (int i = op->first_param; i < op->first_param + op->n_param; i++)
    if (!graph->params[i].buffer) n += graph->params[i].numel;
  return n;
}

/* For infer functions of kinds: appends the parameter or buffer "OP.SUFFIX". */
mptl_status mptl_graph_add_param(mptl_graph *graph, mptl_op *op, const char *suffix, bool buffer,
                                 int ndim, const int64_t *dims, mptl_init init);

/* The shape of an operator's i-th input. */
static inline mptl_shape mptl_input_shape(const mptl_graph *graph, const mptl_op *op, int i) {
  return graph->values[op->in[i]].shape;
}

/* The layouts of an operator's i-th input and of its output. */
static inline mptl_shape mptl_input_layout(const mptl_graph *graph, const mptl_op *op, int i) {
  return graph->values[op->in[i]].layout;
}
static inline mptl_shape mptl_output_layout(const mptl_graph *graph, const mptl_op *op) {
  return graph->values[op->out].layout;
}

/* The index of the operator that makes an operator's i-th input; if that is a view, the viewed
 * value. */
static inline int mptl_producer(const mptl_graph *graph, const mptl_op *op, int i) {
  return graph->values[graph->values[op->in[i]].base].op;
}

/* The number of an operator's input k, among the inputs of all operators. */
static inline int mptl_reader(int op, int k) { return op * MPTL_MAX_INPUTS + k; }

/* The index of the operator of the input with that number, and which of its inputs it is. */
static inline int mptl_reader_op(int reader) { return reader / MPTL_MAX_INPUTS; }
static inline int mptl_reader_input(int reader) { return reader % MPTL_MAX_INPUTS; }

/* The next input that reads the same operator's output; -1: it was the last. */
static inline int mptl_next_reader(const mptl_graph *graph, int reader) {
  return graph->ops[mptl_reader_op(reader)].next_reader[mptl_reader_input(reader)];
}

#endif
