/* log_softmax and nll_loss: small rows, one a sample. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

static size_t classes(const mptl_call *call) { return (size_t)mptl_input_shape(call->graph, call->op, 0).c; }

static size_t softmax_scratch_bytes(const mptl_call *call) {
  return classes(call) > MPTL_TILE ? classes(call) * mptl_thread_limit() * sizeof(float) : 0;
}

/* y = x - max - log(sum exp(x - max)) */
static void softmax_tile(const mptl_call *call, mptl_tile *tile) {
  size_t c = classes(call);
  float *y = mptl_tile_begin(&call->y, tile);
  for (size_t at = 0; at < tile->n; at += c) {
    const float *x = call->in[0].data + tile->offset + at;
    float max = x[0];
    double sum = 0;
    for (size_t i = 1; i < c; i++) max = x[i] > max ? x[i] : max;
    for (size_t i = 0; i < c; i++) sum += exp((double)x[i] - (double)max);
    double shift = (double)max + log(sum);
    for (size_t i = 0; i < c; i++) y[at + i] = (float)((double)x[i] - shift);
  }
  mptl_tile_end(&call->y, tile, y, 0);
}

static mptl_status softmax_forward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), classes(call), softmax_tile, &call->y, 1);
  return MPTL_OK;
}

/* dx = dy - exp(y) sum(dy) */
static void softmax_backward_tile(const mptl_call *call, mptl_tile *tile) {
  size_t c = classes(call);
  float *dx = mptl_tile_begin(&call->dx[0], tile);
  for (size_t at = 0; at < tile->n; at += c) {
    const float *y = call->out.data + tile->offset + at, *dy = call->dy.data + tile->offset + at;
    double sum = 0;
    for (size_t i = 0; i < c; i++) sum += (double)dy[i];
    for (size_t i = 0; i < c; i++) dx[at + i] = (float)((double)dy[i] - exp((double)y[i]) * sum);
  }
  mptl_tile_end(&call->dx[0], tile, dx, 0);
}

static mptl_status softmax_backward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->out), classes(call), softmax_backward_tile, call->dx, 1);
  return MPTL_OK;
}

/* One loss a sample, -x[label]; samples beyond the valid ones have loss 0. */
static mptl_status nll_forward(mptl_call *call) {
  size_t c = classes(call);
  call->correct = 0;
  for (int i = 0; i < call->batch; i++) {
    const float *x = call->in[0].data + (size_t)i * c;
    call->y.data[i] = 0.0f;
    if (i >= call->n_valid) continue;
    int32_t label = call->labels[i];
    if (label < 0 || (size_t)label >= c)
      return mptl_fail(MPTL_EINVAL, "label of sample %d: %d, accepted are 0 to %d", i, (int)label, (int)c - 1);
    size_t best = 0;
    for (size_t k = 1; k < c; k++)
      if (x[k] > x[best]) best = k;
    call->y.data[i] = -x[label];
    call->correct += best == (size_t)label;
  }
  mptl_store(call, &call->y, call->y.data, (size_t)call->batch);
  call->loss_sum = 0;
  for (int i = 0; i < call->n_valid; i++) call->loss_sum += (double)call->y.data[i];
  return MPTL_OK;
}

static void nll_backward_tile(const mptl_call *call, mptl_tile *tile) {
  size_t c = classes(call);
  float *dx = mptl_tile_begin(&call->dx[0], tile);
  memset(dx, 0, tile->n * sizeof *dx);
  for (size_t at = 0; at < tile->n; at += c) {
    size_t sample = (tile->offset + at) / c;
    dx[at + (size_t)call->labels[sample]] = -call->dy.data[sample];
  }
  mptl_tile_end(&call->dx[0], tile, dx, 0);
}

static mptl_status nll_backward(mptl_call *call) {
  mptl_run_tiles(call, mptl_batch_numel(call, call->op->in[0]), classes(call), nll_backward_tile, call->dx, 1);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_log_softmax = {
    .kind = "log_softmax", .scratch_bytes = softmax_scratch_bytes, .forward = softmax_forward, .backward = softmax_backward};
const mptl_cpu_op mptl_cpu_nll_loss = {
    .kind = "nll_loss", .scratch_bytes = softmax_scratch_bytes, .forward = nll_forward, .backward = nll_backward};
