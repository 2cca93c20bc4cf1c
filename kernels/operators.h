/* The operators, in one list, for C and CUDA. A row is the name in scripts and the constant in
 * engine and kernels. A new operator begins with a row here; see "To add ..." in
 * docs/architecture.md. */
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

/* The places of parameters and buffers in the list of their operator. */
enum { MPTL_PRODUCT_WEIGHT, MPTL_PRODUCT_BIAS }; /* conv2d, linear */
enum {
  MPTL_NORM_WEIGHT,
  MPTL_NORM_BIAS,
  MPTL_NORM_MEAN,
  MPTL_NORM_VAR
}; /* batchnorm2d; layernorm has the first two */

#endif
