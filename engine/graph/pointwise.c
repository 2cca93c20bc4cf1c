/* Operators whose output has the shape of their input: input, dropout, add, mul, batchnorm2d,
 * layernorm, log_softmax, and the operators of kernels/pointwise.h. They need not be pointwise. */
#include "graph/ops.h"
#include "kernels/pointwise.h"

static mptl_status infer_input(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  (void)g, (void)op;
  *out = (mptl_shape){
      .ndim = 1, .c = 1, .h = 1, .w = 1}; /* mptl_graph_input sets the shape afterwards */
  return MPTL_OK;
}

static mptl_status infer_same(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  *out = mptl_input_shape(g, op, 0);
  return MPTL_OK;
}

static mptl_status infer_two(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  mptl_shape a = mptl_input_shape(g, op, 0), b = mptl_input_shape(g, op, 1);
  char ta[40], tb[40];
  if (a.ndim != b.ndim || a.c != b.c || a.h != b.h || a.w != b.w)
    return mptl_fail(MPTL_EINVAL, "inputs of shapes %s and %s, must be equal",
                     mptl_shape_print(a, ta), mptl_shape_print(b, tb));
  *out = a;
  return MPTL_OK;
}

static mptl_status infer_batchnorm2d(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 3));
  *out = mptl_input_shape(g, op, 0);
  int64_t channels[] = {out->c};
  mptl_init zero = {MPTL_INIT_CONSTANT, 0, 0}, one = {MPTL_INIT_CONSTANT, 1, 0};
  MPTL_TRY(mptl_graph_add_param(g, op, "weight", false, 1, channels, one));
  MPTL_TRY(mptl_graph_add_param(g, op, "bias", false, 1, channels, zero));
  MPTL_TRY(mptl_graph_add_param(g, op, "running_mean", true, 1, channels, zero));
  return mptl_graph_add_param(g, op, "running_var", true, 1, channels, one);
}

/* Normalises rows: the features of a sample, or the channels of each pixel. */
static mptl_status infer_layernorm(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_channels(g, op, 0));
  MPTL_TRY(infer_same(g, op, out));
  int64_t features[] = {out->c};
  MPTL_TRY(mptl_graph_add_param(g, op, "weight", false, 1, features,
                                (mptl_init){MPTL_INIT_CONSTANT, 1, 0}));
  if (!op->attr.bias) return MPTL_OK;
  return mptl_graph_add_param(g, op, "bias", false, 1, features,
                              (mptl_init){MPTL_INIT_CONSTANT, 0, 0});
}

static mptl_status infer_log_softmax(mptl_graph *g, mptl_op *op, mptl_shape *out) {
  MPTL_TRY(mptl_expect_ndim(g, op, 0, 1));
  return infer_same(g, op, out);
}

const mptl_op_kind mptl_op_input = {
    .id = MPTL_OP_INPUT, .name = "input", .n_in = 0, .infer = infer_input};

#define UNARY_KIND(word, NAME, traits)                                                         \
  _Static_assert(((MPTL_READS_IN & (traits)) != 0) != ((MPTL_READS_OUT & (traits)) != 0),      \
                 "backward reads one value");                                                  \
  const mptl_op_kind mptl_op_##word = {.id = MPTL_OP_##NAME,                                   \
                                       .name = #word,                                          \
                                       .n_in = 1,                                              \
                                       .follows_inputs = true,                                 \
                                       .pointwise = true,                                      \
                                       .backward_reads_in = (MPTL_READS_IN & (traits)) != 0,   \
                                       .backward_reads_out = (MPTL_READS_OUT & (traits)) != 0, \
                                       .infer = infer_same};
MPTL_UNARY_OPERATORS(UNARY_KIND)

/* The mask is a function of seed, step and element, so backward computes it again. */
const mptl_op_kind mptl_op_dropout = {
    .id = MPTL_OP_DROPOUT,
    .name = "dropout",
    .n_in = 1,
    .follows_inputs = true,
    .pointwise = true,
    .infer = infer_same,
    .attributes = (const char *const[]){"p", NULL},
};

const mptl_op_kind mptl_op_add = {.id = MPTL_OP_ADD,
                                  .name = "add",
                                  .n_in = 2,
                                  .follows_inputs = true,
                                  .pointwise = true,
                                  .infer = infer_two};

const mptl_op_kind mptl_op_mul = {.id = MPTL_OP_MUL,
                                  .name = "mul",
                                  .n_in = 2,
                                  .follows_inputs = true,
                                  .pointwise = true,
                                  .backward_reads_in = true,
                                  .infer = infer_two};

const mptl_op_kind mptl_op_batchnorm2d = {
    .id = MPTL_OP_BATCHNORM2D,
    .name = "batchnorm2d",
    .n_in = 1,
    .follows_inputs = true,
    .pointwise = true,
    .normalises = true,
    .saved_by_channel = 2, /* mean, inverse standard deviation */
    .backward_reads_in = true,
    .infer = infer_batchnorm2d,
    .attributes = (const char *const[]){"eps", "momentum", NULL},
};

/* Backward computes the row statistics again. */
const mptl_op_kind mptl_op_layernorm = {
    .id = MPTL_OP_LAYERNORM,
    .name = "layernorm",
    .n_in = 1,
    .follows_inputs = true,
    .backward_reads_in = true,
    .infer = infer_layernorm,
    .attributes = (const char *const[]){"eps", "bias", NULL},
};

const mptl_op_kind mptl_op_log_softmax = {.id = MPTL_OP_LOG_SOFTMAX,
                                          .name = "log_softmax",
                                          .n_in = 1,
                                          .keeps_layout = true,
                                          .backward_reads_out = true,
                                          .infer = infer_log_softmax};
