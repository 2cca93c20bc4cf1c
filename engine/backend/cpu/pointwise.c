/* input, dropout, add, mul, and the operators of kernels/pointwise.h. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "kernels/cpu/table.h"
#include "kernels/pointwise.h"

/* input: copies the images (in[0] is the batch), which are then rounded like any output. Beyond the
 * valid samples it writes zeros. */
static void input_forward(const mptl_call *call, const mptl_tile *tile) {
  size_t end = mptl_batch_numel(call, call->op->out) / (size_t)call->batch * (size_t)call->n_valid;
  size_t n = tile->offset >= end ? 0 : end - tile->offset < tile->n ? end - tile->offset : tile->n;
  memcpy(tile->y, (const float *)call->in[0].data + tile->offset, n * sizeof *tile->y);
  memset(tile->y + n, 0, (tile->n - n) * sizeof *tile->y);
}

/* The operators of kernels/pointwise.h. */
static void unary_forward(const mptl_call *call, const mptl_tile *tile) {
  mptl_cpu_kernels_get()->unary[call->op->kind->id].forward(tile->y, tile->x[0], tile->n);
}

static void unary_backward(const mptl_call *call, const mptl_tile *tile) {
  if (tile->y_codes.codes != NULL) { /* of a ReLU */
    mptl_codes()->relu_backward_f32(tile->dx[0], tile->dy, tile->y_codes.codes,
                                    tile->y_codes.rounder, tile->n);
    return;
  }
  const float *read = call->op->kind->backward_reads_in ? tile->x[0] : tile->y;
  mptl_cpu_kernels_get()->unary[call->op->kind->id].backward(tile->dx[0], tile->dy, read, tile->n);
}

static void mask(const mptl_call *call, float *to, const float *from, const mptl_tile *tile) {
  mptl_cpu_kernels_get()->dropout_f32(to, from, tile->n, call->op->attr.p, call->key, tile->offset);
}

static void dropout_forward(const mptl_call *call, const mptl_tile *tile) {
  if (call->train)
    mask(call, tile->y, tile->x[0], tile);
  else
    memcpy(tile->y, tile->x[0], tile->n * sizeof *tile->y);
}

static void dropout_backward(const mptl_call *call, const mptl_tile *tile) {
  mask(call, tile->dx[0], tile->dy, tile);
}

static void add_forward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  mptl_layers()->add(tile->y, tile->x[0], tile->x[1], tile->n);
}

/* Each input gets the gradient, rounded to its own format. */
static void add_backward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  for (int k = 0; k < 2; k++)
    if (tile->dx[k] != NULL) memcpy(tile->dx[k], tile->dy, tile->n * sizeof *tile->dy);
}

static void mul_forward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  mptl_layers()->mul(tile->y, tile->x[0], tile->x[1], tile->n);
}

static void mul_backward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  for (int k = 0; k < 2; k++)
    if (tile->dx[k] != NULL) mptl_layers()->mul(tile->dx[k], tile->dy, tile->x[1 - k], tile->n);
}

static mptl_code_tile add_backward_codes(const mptl_code_tile *dy, const mptl_code_tile *y,
                                         size_t n, void *buffer) {
  (void)y;
  memcpy(buffer, dy->codes, n * mptl_code_size(dy->rounder->format));
  return (mptl_code_tile){buffer, dy->rounder, mptl_codes()->largest(buffer, n, dy->rounder)};
}

static uint32_t relu_codes(void *codes, size_t n, const mptl_rounder *rounder) {
  return mptl_codes()->relu(codes, n, rounder);
}

static mptl_code_tile relu_backward_codes(const mptl_code_tile *dy, const mptl_code_tile *y,
                                          size_t n, void *buffer) {
  uint32_t largest =
      mptl_codes()->relu_backward(buffer, dy->codes, dy->rounder, y->codes, y->rounder, n);
  return (mptl_code_tile){buffer, dy->rounder, largest};
}

static const mptl_pointwise input = {.forward = input_forward};
static const mptl_pointwise dropout = {.forward = dropout_forward, .backward = dropout_backward};
static const mptl_pointwise add = {.forward = add_forward,
                                   .backward = add_backward,
                                   .backward_selects = true,
                                   .backward_codes = add_backward_codes};
static const mptl_pointwise mul = {.forward = mul_forward, .backward = mul_backward};

const mptl_cpu_op mptl_cpu_input = {.pointwise = &input};
const mptl_cpu_op mptl_cpu_dropout = {.pointwise = &dropout};
const mptl_cpu_op mptl_cpu_add = {.pointwise = &add};
const mptl_cpu_op mptl_cpu_mul = {.pointwise = &mul};

#define UNARY_OP(name, NAME, traits)                                                  \
  static const mptl_pointwise pointwise_##name = {                                    \
      .forward = unary_forward,                                                       \
      .backward = unary_backward,                                                     \
      .backward_selects = (MPTL_BACKWARD_SELECTS & (traits)) != 0,                    \
      .backward_reads_either = (MPTL_READS_EITHER & (traits)) != 0,                   \
      .forward_codes = MPTL_OP_##NAME == MPTL_OP_RELU ? relu_codes : NULL,            \
      .backward_codes = MPTL_OP_##NAME == MPTL_OP_RELU ? relu_backward_codes : NULL}; \
  const mptl_cpu_op mptl_cpu_##name = {.pointwise = &pointwise_##name};
MPTL_UNARY_OPERATORS(UNARY_OP)
