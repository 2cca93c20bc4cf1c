/* log_softmax and the losses. Both work on rows: the features of a sample. */
#include <math.h>

#include "backend/call_shapes.h"
#include "backend/cpu/cpu.h"

/* Scratch memory of a thread: a row of results, and rows of the two operands that log_softmax reads
 * in backward. */
static size_t row_floats(const mptl_call *call) { return 3 * mptl_call_features(call); }
static size_t scratch_bytes(const mptl_call *call) {
  return mptl_rows_scratch_bytes(call, row_floats(call));
}

/* y = x - max - log(sum exp(x - max)) */
static void softmax_row(const mptl_call *call, size_t sample, float *buffer,
                        mptl_round_stats *stats) {
  size_t c = mptl_call_features(call), at = sample * c;
  float *y = mptl_results(&call->y, at, buffer);
  const float *x = mptl_read(&call->in[0], at, c, buffer + c);
  float max = x[0];
  double sum = 0;
  for (size_t i = 1; i < c; i++) max = x[i] > max ? x[i] : max;
  for (size_t i = 0; i < c; i++) sum += exp((double)x[i] - (double)max);
  double log_sum = (double)max + log(sum);
  for (size_t i = 0; i < c; i++) y[i] = (float)((double)x[i] - log_sum);
  mptl_write(&call->y, at, c, y, stats);
}

static mptl_status softmax_forward(const mptl_call *call) {
  mptl_run_rows(call, (size_t)call->batch, row_floats(call), softmax_row, &call->y, 1);
  return MPTL_OK;
}

/* dx = dy - exp(y) sum(dy) */
static void softmax_backward_row(const mptl_call *call, size_t sample, float *buffer,
                                 mptl_round_stats *stats) {
  size_t c = mptl_call_features(call), at = sample * c;
  float *dx = mptl_results(&call->dx[0], at, buffer);
  const float *y = mptl_read(&call->out, at, c, buffer + c),
              *dy = mptl_read(&call->dy, at, c, buffer + 2 * c);
  double sum = 0;
  for (size_t i = 0; i < c; i++) sum += (double)dy[i];
  for (size_t i = 0; i < c; i++) dx[i] = (float)((double)dy[i] - exp((double)y[i]) * sum);
  mptl_write(&call->dx[0], at, c, dx, stats);
}

static mptl_status softmax_backward(const mptl_call *call) {
  if (mptl_wanted(&call->dx[0]))
    mptl_run_rows(call, (size_t)call->batch, row_floats(call), softmax_backward_row, &call->dx[0],
                  1);
  return MPTL_OK;
}

/* ---- Losses (kernels/losses.h) ---- */

static size_t place_of_largest(const float *x, size_t n) {
  size_t best = 0;
  for (size_t k = 1; k < n; k++)
    if (x[k] > x[best]) best = k;
  return best;
}

/* Whether a sample is correct: its largest x is at its label, or at its largest target. */
static bool is_correct(const mptl_targets *t, const mptl_loss_shape *s, size_t sample,
                       const float *x) {
  size_t target = t->labels != NULL ? (size_t)t->labels[sample]
                                    : place_of_largest(t->values + sample * s->n, s->n);
  return place_of_largest(x, s->n) == target;
}

/* The two functions of a loss: the sum of a sample's terms, and the gradients of a sample's x. */
typedef double sum_fn(const float *x, const mptl_targets *t, const mptl_loss_shape *s,
                      size_t sample);
typedef void gradients_fn(float *dx, const float *x, float dy, const mptl_targets *t,
                          const mptl_loss_shape *s, size_t sample);

/* Stores the loss of each sample, 0 beyond the valid ones, and sums up the batch. On one thread, so
 * that the order of the sum does not depend on threads. */
static mptl_status loss_forward(const mptl_call *call, sum_fn *sum) {
  const mptl_loss_shape s = mptl_call_loss(call);
  float *buffer = call->scratch;
  *call->loss = (mptl_loss){.bad_label = -1};
  for (size_t i = 0; i < s.batch; i++) {
    float loss = 0.0f, rounded;
    if (i < s.valid) {
      const float *x = mptl_read(&call->in[0], i * s.n, s.n, buffer);
      loss = mptl_rounded_sum(sum(x, &call->targets, &s, i));
      if (s.accuracy) call->loss->correct += is_correct(&call->targets, &s, i, x);
    }
    mptl_write(&call->y, i, 1, &loss, call->y.stats);
    rounded =
        *mptl_read(&(mptl_source){call->y.data, call->y.size, call->y.rounder}, i, 1, &rounded);
    if (i < s.valid) call->loss->sum += (double)rounded;
  }
  return MPTL_OK;
}

/* Computes and stores the gradients of a sample's x. The buffer holds the results, then x if
 * backward reads it. */
static void loss_backward_row(const mptl_call *call, size_t sample, float *buffer,
                              mptl_round_stats *stats, gradients_fn *gradients) {
  const mptl_loss_shape s = mptl_call_loss(call);
  size_t at = sample * s.n;
  float *dx = mptl_results(&call->dx[0], at, buffer), dy;
  const float *x =
      call->op->kind->backward_reads_in ? mptl_read(&call->in[0], at, s.n, buffer + s.n) : NULL;
  gradients(dx, x, *mptl_read(&call->dy, sample, 1, &dy), &call->targets, &s, sample);
  mptl_write(&call->dx[0], at, s.n, dx, stats);
}

/* A loss's functions, made from those of kernels/losses.h. */
#define LOSS(name, NAME, reads_x, by_values)                                                     \
  static double name##_sum(const float *x, const mptl_targets *t, const mptl_loss_shape *s,      \
                           size_t sample) {                                                      \
    double sum = -0.0;                                                                           \
    for (size_t k = 0; k < s->n; k++)                                                            \
      sum += mptl_term_##name(x[k], mptl_target(t, s, sample, k), s->n);                         \
    return sum;                                                                                  \
  }                                                                                              \
  static void name##_gradients(float *dx, const float *x, float dy, const mptl_targets *t,       \
                               const mptl_loss_shape *s, size_t sample) {                        \
    for (size_t k = 0; k < s->n; k++)                                                            \
      dx[k] =                                                                                    \
          mptl_gradient_##name(x != NULL ? x[k] : 0.0f, mptl_target(t, s, sample, k), dy, s->n); \
  }                                                                                              \
  static mptl_status name##_forward(const mptl_call *call) {                                     \
    return loss_forward(call, name##_sum);                                                       \
  }                                                                                              \
  static void name##_backward_row(const mptl_call *call, size_t sample, float *buffer,           \
                                  mptl_round_stats *stats) {                                     \
    loss_backward_row(call, sample, buffer, stats, name##_gradients);                            \
  }                                                                                              \
  static mptl_status name##_backward(const mptl_call *call) {                                    \
    if (mptl_wanted(&call->dx[0]))                                                               \
      mptl_run_rows(call, (size_t)call->batch, row_floats(call), name##_backward_row,            \
                    &call->dx[0], 1);                                                            \
    return MPTL_OK;                                                                              \
  }                                                                                              \
  const mptl_cpu_op mptl_cpu_##name = {                                                          \
      .scratch_bytes = scratch_bytes, .forward = name##_forward, .backward = name##_backward};
MPTL_LOSSES(LOSS)

const mptl_cpu_op mptl_cpu_log_softmax = {
    .scratch_bytes = scratch_bytes, .forward = softmax_forward, .backward = softmax_backward};
