/* input, relu, add: one pass over memory each way. */
#include <string.h>

#include "backend/cpu/cpu.h"

/* input: the images are rounded as they come (call->in[0] is the batch). */
static void input_tile(const mptl_call *call, mptl_tile *tile) {
  float *y = mptl_tile_begin(&call->y, tile);
  memcpy(y, call->in[0].data + tile->offset, tile->n * sizeof *y);
  mptl_tile_end(&call->y, tile, y, 0);
}

static mptl_status input_forward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), 64, input_tile, &call->y, 1);
  return MPTL_OK;
}

static void relu_tile(const mptl_call *call, mptl_tile *tile) {
  float *y = mptl_tile_begin(&call->y, tile);
  mptl_layers()->relu(y, call->in[0].data + tile->offset, tile->n);
  mptl_tile_end(&call->y, tile, y, 0);
}

static mptl_status relu_forward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), 64, relu_tile, &call->y, 1);
  return MPTL_OK;
}

/* The mask is that of the rounded output: where a small positive value was rounded to zero, no gradient passes. */
static void relu_backward_tile(const mptl_call *call, mptl_tile *tile) {
  float *dx = mptl_tile_begin(&call->dx[0], tile);
  mptl_layers()->relu_backward(dx, call->dy.data + tile->offset, call->out.data + tile->offset, tile->n);
  mptl_tile_end(&call->dx[0], tile, dx, 0);
}

static mptl_status relu_backward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), 64, relu_backward_tile, call->dx, 1);
  return MPTL_OK;
}

static void add_tile(const mptl_call *call, mptl_tile *tile) {
  float *y = mptl_tile_begin(&call->y, tile);
  mptl_layers()->add(y, call->in[0].data + tile->offset, call->in[1].data + tile->offset, tile->n);
  mptl_tile_end(&call->y, tile, y, 0);
}

static mptl_status add_forward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), 64, add_tile, &call->y, 1);
  return MPTL_OK;
}

/* Both inputs get the gradient, each rounded to its own format. */
static void add_backward_tile(const mptl_call *call, mptl_tile *tile) {
  for (int k = 0; k < 2; k++) {
    if (call->dx[k].data == NULL) continue;
    float *dx = mptl_tile_begin(&call->dx[k], tile);
    memcpy(dx, call->dy.data + tile->offset, tile->n * sizeof *dx);
    mptl_tile_end(&call->dx[k], tile, dx, k);
  }
}

static mptl_status add_backward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), 64, add_backward_tile, call->dx, 2);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_input = {.kind = "input", .forward = input_forward};
const mptl_cpu_op mptl_cpu_relu = {.kind = "relu", .forward = relu_forward, .backward = relu_backward};
const mptl_cpu_op mptl_cpu_add = {.kind = "add", .forward = add_forward, .backward = add_backward};
