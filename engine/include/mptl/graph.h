/* A network as data: operators in execution order, each with inputs, outputs, parameters and attributes.
 *
 * A script records the graph once; the planner (plan.h) and the program compiler (program.h) read it. Shapes are those of one
 * sample, channels first as in PyTorch: (c,h,w), or (f) for flat values; the batch size is the program's business.
 */
#ifndef MPTL_GRAPH_H
#define MPTL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/operators.h"
#include "mptl/status.h"

#define MPTL_MAX_INPUTS 16
#define MPTL_SEVERAL (-1) /* inputs of a kind: 1 to MPTL_MAX_INPUTS */

typedef struct mptl_shape {
  int ndim;    /* 3: (c,h,w); 1: (c) with h = w = 1 */
  int c, h, w; /* all positive */
} mptl_shape;

static inline size_t mptl_shape_numel(mptl_shape s) { return (size_t)s.c * (size_t)s.h * (size_t)s.w; }

/* Attributes of all operators: name, type, lowest and highest value accepted, default. A PAIR is (height, width). A default below the
 * lowest value means that the attribute must be given. Each kind says which attributes it takes. */
#define MPTL_ATTRIBUTES(ROW)                                                                                       \
  ROW(out, INTEGER, 1, 1 << 24, 0) /* output channels or features */                                               \
  ROW(kernel, PAIR, 1, 1 << 16, 1)                                                                                 \
  ROW(stride, PAIR, 1, 1 << 16, 1)                                                                                 \
  ROW(padding, PAIR, 0, 1 << 16, 0)                                                                                \
  ROW(dilation, PAIR, 1, 1 << 16, 1)                                                                               \
  ROW(groups, INTEGER, 1, 1 << 24, 1) /* of channels, in a convolution */                                          \
  ROW(bias, FLAG, 0, 1, 1)                                                                                         \
  ROW(count_include_pad, FLAG, 0, 1, 1) /* avgpool: padding counts as zeros, else it is left out of the average */ \
  ROW(eps, REAL, 0, 1, 1e-5)            /* of norms: PyTorch's meaning */                                          \
  ROW(momentum, REAL, 0, 1, 0.1)        /* of norms: PyTorch's meaning */                                          \
  ROW(p, REAL, 0, 1, 0.5)               /* dropout: probability that an element becomes zero */                    \
  ROW(first, INTEGER, 0, 1 << 24, 0)    /* slice: channels [first, first + count) */                               \
  ROW(count, INTEGER, 1, 1 << 24, 0)                                                                               \
  ROW(shuffle, INTEGER, 1, 1 << 24, 1) /* concat: groups of the channel shuffle of its result */                   \
  ROW(label_smoothing, REAL, 0, 1, 0)  /* of losses: kernels/losses.h */

#define MPTL_ATTRIBUTE_PAIR(name) int name[2]
#define MPTL_ATTRIBUTE_INTEGER(name) int name
#define MPTL_ATTRIBUTE_REAL(name) double name
#define MPTL_ATTRIBUTE_FLAG(name) bool name
#define MPTL_ATTRIBUTE(name, type, min, max, initial) MPTL_ATTRIBUTE_##type(name);
typedef struct mptl_attributes {
  MPTL_ATTRIBUTES(MPTL_ATTRIBUTE)
} mptl_attributes;
#undef MPTL_ATTRIBUTE

typedef enum mptl_init_kind { MPTL_INIT_CONSTANT, MPTL_INIT_UNIFORM, MPTL_INIT_NORMAL } mptl_init_kind;

typedef struct mptl_init {
  mptl_init_kind kind;
  double a, b; /* constant a; uniform in [a, b); normal with mean a and standard deviation b */
} mptl_init;

/* A parameter (trained) or a buffer (kept, not trained: running statistics), named as PyTorch names it. */
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
 * The layout says where its elements are in memory: sample by sample, in each h rows of w pixels of c
 * features (NHWC). It is the shape, except for a flattened image: its features stay where the image's
 * elements are. Pointwise operators and log_softmax keep the layout of their input. */
typedef struct mptl_value {
  int op;   /* index of the operator that made it */
  int base; /* the value itself, or for a view the value whose memory it shows */
  mptl_shape shape, layout;
} mptl_value;

/* Where element i of a sample, counted in PyTorch's order (channel, row, column), is in memory; and which
 * element is at a place there. */
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
  char *name; /* path of the layer: "layer1.0.conv1" */
  int n_in;
  int in[MPTL_MAX_INPUTS]; /* value ids */
  int out;                 /* value id */
  mptl_attributes attr;
  int first_param, n_param; /* range in the graph's params; buffers come after the trained ones of an operator */
} mptl_op;

typedef struct mptl_graph {
  int n_ops, n_values, n_params, n_outputs;
  int loss;     /* the operator that is the loss; -1: there is none yet */
  int *outputs; /* values that are read after a step: mptl_graph_mark_output */
  mptl_op *ops; /* in execution order */
  mptl_value *values;
  mptl_param *params;
} mptl_graph;

/* A row of the operator table (engine/graph/op_table.c). */
struct mptl_op_kind {
  mptl_op_id id;
  const char *name;
  int n_in;                      /* number of inputs, or MPTL_SEVERAL */
  bool gemm;                     /* starts a new group (method.md 3) */
  bool follows_inputs;           /* `amp`: low when all inputs are low */
  bool pointwise;                /* an output element depends on that element of the inputs, and on sums over channels */
  bool keeps_layout;             /* the output has the input's layout; pointwise operators have it in any case */
  bool loss;                     /* a number for each sample, of its input and the sample's targets (kernels/losses.h) */
  bool accuracy_by_values;       /* of a loss: accuracy is counted also for targets that are values */
  bool normalises;               /* training takes the statistics of each channel, over at least two values */
  bool backward_reads_in;        /* the backward formula reads the rounded inputs */
  bool backward_reads_out;       /* ... the rounded output */
  int saved_by_channel;          /* binary32 vectors, one number for each input channel, that forward keeps for backward */
  const char *const *attributes; /* names it takes, NULL-terminated; NULL for none */
  /* Checks inputs and attributes, sets the output's shape, adds parameters. */
  mptl_status (*infer)(mptl_graph *graph, mptl_op *op, mptl_shape *out);
};

MPTL_API mptl_status mptl_graph_create(mptl_graph **graph);
MPTL_API void mptl_graph_destroy(mptl_graph *graph);

/* The default of every attribute. */
MPTL_API mptl_attributes mptl_attributes_default(void);

/* Sets an attribute by name to one or two numbers (height, width). MPTL_EINVAL for an unknown name or a value it cannot take. */
MPTL_API mptl_status mptl_attributes_set(mptl_attributes *attributes, const char *name, int count, const double *values);

/* The kind called name; NULL with a message that lists the kinds. mptl_op_kind_at is by id; NULL beyond the last. */
MPTL_API const mptl_op_kind *mptl_op_kind_find(const char *name);
MPTL_API const mptl_op_kind *mptl_op_kind_at(size_t id);

/* Appends an operator and returns its output value in *value. name must be unique among operators. Errors are prefixed with the name. */
MPTL_API mptl_status mptl_graph_add(mptl_graph *graph, int *value, const mptl_op_kind *kind, const char *name, int n_in,
                                    const int *inputs, const mptl_attributes *attributes);

/* The network's input, the first operator: kind "input". */
MPTL_API mptl_status mptl_graph_input(mptl_graph *graph, int *value, mptl_shape shape);

/* A flat view of a value, with its layout. No operator. */
MPTL_API mptl_status mptl_graph_flatten(mptl_graph *graph, int *value, int of);

/* Has a value kept to be read after a step, as the loss and its inputs are. */
MPTL_API mptl_status mptl_graph_mark_output(mptl_graph *graph, int value);

/* Whether an operator's output is read after a step. */
MPTL_API bool mptl_graph_is_output(const mptl_graph *graph, int op);

/* How a parameter (by name) is to be initialised; the default is PyTorch's for the layer. */
MPTL_API mptl_status mptl_graph_set_init(mptl_graph *graph, const char *param, mptl_init init);

/* Index of the parameter or buffer called name, or -1. */
MPTL_API int mptl_graph_find_param(const mptl_graph *graph, const char *name);

/* Whether all that reads an operator's output are slices, and each channel comes to one of them: its gradient is no sum then. */
MPTL_API bool mptl_graph_shared_out(const mptl_graph *graph, int op);

/* The least batch that an operator, by index, can be trained with. */
MPTL_API int mptl_graph_least_batch(const mptl_graph *graph, int op);

/* For op_kind implementations: appends a parameter or buffer "OP.SUFFIX". */
mptl_status mptl_graph_add_param(mptl_graph *graph, mptl_op *op, const char *suffix, bool buffer, int ndim, const int64_t *dims,
                                 mptl_init init);

/* Shape of an operator's i-th input. */
static inline mptl_shape mptl_input_shape(const mptl_graph *graph, const mptl_op *op, int i) {
  return graph->values[op->in[i]].shape;
}

/* Layouts of an operator's i-th input and of its output. */
static inline mptl_shape mptl_input_layout(const mptl_graph *graph, const mptl_op *op, int i) {
  return graph->values[op->in[i]].layout;
}
static inline mptl_shape mptl_output_layout(const mptl_graph *graph, const mptl_op *op) { return graph->values[op->out].layout; }

/* Index of the operator that makes an operator's i-th input (through views). */
static inline int mptl_producer(const mptl_graph *graph, const mptl_op *op, int i) {
  return graph->values[graph->values[op->in[i]].base].op;
}

#endif
