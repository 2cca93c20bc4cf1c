/* log_softmax and nll_loss: a row of classes a sample. */
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu.h"

static size_t classes(const mptl_call *call) { return (size_t)mptl_input_shape(call->graph, call->op, 0).c; }

/* Three rows: results, and the two operands of softmax's backward. */
static size_t row_floats(const mptl_call *call) { return 3 * classes(call); }
static size_t scratch_bytes(const mptl_call *call) { return mptl_rows_scratch_bytes(call, row_floats(call)); }

/* y = x - max - log(sum exp(x - max)) */
static void softmax_row(const mptl_call *call, size_t sample, float *buffer, mptl_round_stats *stats) {
  size_t c = classes(call), at = sample * c;
  float *y = mptl_results(&call->y, at, buffer);
  const float *x = mptl_read(&call->in[0], at, c, buffer + c);
  float max = x[0];
  double sum = 0;
  for (size_t i = 1; i < c; i++) max = x[i] > max ? x[i] : max;
  for (size_t i = 0; i < c; i++) sum += exp((double)x[i] - (double)max);
  double shift = (double)max + log(sum);
  for (size_t i = 0; i < c; i++) y[i] = (float)((double)x[i] - shift);
  mptl_write(&call->y, at, c, y, stats);
}

static mptl_status softmax_forward(const mptl_call *call) {
  mptl_run_rows(call, (size_t)call->batch, row_floats(call), softmax_row, &call->y, 1);
  return MPTL_OK;
}

/* dx = dy - exp(y) sum(dy) */
static void softmax_backward_row(const mptl_call *call, size_t sample, float *buffer, mptl_round_stats *stats) {
  size_t c = classes(call), at = sample * c;
  float *dx = mptl_results(&call->dx[0], at, buffer);
  const float *y = mptl_read(&call->out, at, c, buffer + c), *dy = mptl_read(&call->dy, at, c, buffer + 2 * c);
  double sum = 0;
  for (size_t i = 0; i < c; i++) sum += (double)dy[i];
  for (size_t i = 0; i < c; i++) dx[i] = (float)((double)dy[i] - exp((double)y[i]) * sum);
  mptl_write(&call->dx[0], at, c, dx, stats);
}

static mptl_status softmax_backward(const mptl_call *call) {
  if (mptl_wanted(&call->dx[0]))
    mptl_run_rows(call, (size_t)call->batch, row_floats(call), softmax_backward_row, &call->dx[0], 1);
  return MPTL_OK;
}

/* One loss a sample, -x[label]; samples beyond the valid ones have loss 0. In order, so that the sum does not depend on threads. */
static mptl_status nll_forward(const mptl_call *call) {
  size_t c = classes(call);
  float *buffer = call->scratch;
  *call->loss = (mptl_loss){0};
  for (int i = 0; i < call->batch; i++) {
    const float *x = mptl_read(&call->in[0], (size_t)i * c, c, buffer);
    float loss = 0.0f;
    if (i < call->n_valid) {
      int32_t label = call->labels[i];
      size_t best = 0;
      for (size_t k = 1; k < c; k++)
        if (x[k] > x[best]) best = k;
      loss = -x[label];
      call->loss->correct += best == (size_t)label;
    }
    float rounded;
    mptl_write(&call->y, (size_t)i, 1, &loss, call->y.stats);
    rounded = *mptl_read(&(mptl_source){call->y.data, call->y.size, call->y.rounder}, (size_t)i, 1, &rounded);
    if (i < call->n_valid) call->loss->sum += (double)rounded;
  }
  return MPTL_OK;
}

static void nll_backward_row(const mptl_call *call, size_t sample, float *buffer, mptl_round_stats *stats) {
  size_t c = classes(call), at = sample * c;
  float *dx = mptl_results(&call->dx[0], at, buffer), dy;
  memset(dx, 0, c * sizeof *dx);
  dx[call->labels[sample]] = -*mptl_read(&call->dy, sample, 1, &dy);
  mptl_write(&call->dx[0], at, c, dx, stats);
}

static mptl_status nll_backward(const mptl_call *call) {
  if (mptl_wanted(&call->dx[0])) mptl_run_rows(call, (size_t)call->batch, row_floats(call), nll_backward_row, &call->dx[0], 1);
  return MPTL_OK;
}

const mptl_cpu_op mptl_cpu_log_softmax = {
    .scratch_bytes = scratch_bytes, .forward = softmax_forward, .backward = softmax_backward};
const mptl_cpu_op mptl_cpu_nll_loss = {.scratch_bytes = scratch_bytes, .forward = nll_forward, .backward = nll_backward};
