/* The operators, in one list, for C and CUDA: a row is the name that scripts use and the constant that engine and kernels use. A new operator
 * is a row here; "To add ..." in docs/architecture.md says what follows.
 */
#ifndef MPTL_KERNELS_OPERATORS_H
#define MPTL_KERNELS_OPERATORS_H

#define MPTL_OPERATORS(ROW)     \
  ROW(input, INPUT)             \
  ROW(conv2d, CONV2D)           \
  ROW(linear, LINEAR)           \
  ROW(batchnorm2d, BATCHNORM2D) \
  ROW(layernorm, LAYERNORM)     \
  ROW(relu, RELU)               \
  ROW(relu6, RELU6)             \
  ROW(sigmoid, SIGMOID)         \
  ROW(gelu, GELU)               \
  ROW(gelu_tanh, GELU_TANH)     \
  ROW(add, ADD)                 \
  ROW(mul, MUL)                 \
  ROW(dropout, DROPOUT)         \
  ROW(avgpool, AVGPOOL)         \
  ROW(maxpool, MAXPOOL)         \
  ROW(mean, MEAN)               \
  ROW(concat, CONCAT)           \
  ROW(slice, SLICE)             \
  ROW(log_softmax, LOG_SOFTMAX) \
  ROW(nll_loss, NLL_LOSS)       \
  ROW(mse_loss, MSE_LOSS)

#define MPTL_OPERATOR_ID(name, NAME) MPTL_OP_##NAME,
typedef enum mptl_op_id { MPTL_OPERATORS(MPTL_OPERATOR_ID) MPTL_OP_IDS } mptl_op_id;
#undef MPTL_OPERATOR_ID

/* Parameters and buffers of an operator, by their place in its list. */
enum { MPTL_PRODUCT_WEIGHT, MPTL_PRODUCT_BIAS };                          /* conv2d, linear */
enum { MPTL_NORM_WEIGHT, MPTL_NORM_BIAS, MPTL_NORM_MEAN, MPTL_NORM_VAR }; /* batchnorm2d, with buffers; layernorm */

#endif
