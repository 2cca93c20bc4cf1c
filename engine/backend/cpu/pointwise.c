/* input, relu, add. */
#include <string.h>

#include "backend/cpu/cpu.h"

/* input: the images are rounded as they come (in[0] is the batch); where the batch is not full the rest is zero. */
static void input_forward(const mptl_call *call, const mptl_tile *tile) {
  size_t end = mptl_batch_numel(call, call->op->out) / (size_t)call->batch * (size_t)call->n_valid;
  size_t n = tile->offset >= end ? 0 : end - tile->offset < tile->n ? end - tile->offset : tile->n;
  memcpy(tile->y, (const float *)call->in[0].data + tile->offset, n * sizeof *tile->y);
  memset(tile->y + n, 0, (tile->n - n) * sizeof *tile->y);
}

static void relu_forward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  mptl_layers()->relu(tile->y, tile->x[0], tile->n);
}

/* The mask is that of the rounded output: where a small positive value was rounded to zero, no gradient passes. */
static void relu_backward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  mptl_layers()->relu_backward(tile->dx[0], tile->dy, tile->y, tile->n);
}

static void add_forward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  mptl_layers()->add(tile->y, tile->x[0], tile->x[1], tile->n);
}

/* Both inputs get the gradient, each rounded to its own format. */
static void add_backward(const mptl_call *call, const mptl_tile *tile) {
  (void)call;
  for (int k = 0; k < 2; k++)
    if (tile->dx[k] != NULL) memcpy(tile->dx[k], tile->dy, tile->n * sizeof *tile->dy);
}

static const mptl_pointwise input = {.forward = input_forward};
static const mptl_pointwise relu = {.forward = relu_forward, .backward = relu_backward};
static const mptl_pointwise add = {.forward = add_forward, .backward = add_backward};

const mptl_cpu_op mptl_cpu_input = {.kind = "input", .pointwise = &input};
const mptl_cpu_op mptl_cpu_relu = {.kind = "relu", .pointwise = &relu};
const mptl_cpu_op mptl_cpu_add = {.kind = "add", .pointwise = &add};
