/* Losses, for C and CUDA. A loss is a row of the list below, two functions of one element, and its
 * name in kernels/operators.h. The tables of the engine and of the backends are made from the list.
 *
 *   double mptl_term_NAME(float x, float t, size_t n)                returns the element's part of
 * the sample's loss float mptl_gradient_NAME(float x, float t, float dy, size_t n)   returns the
 * gradient of x; dy is the gradient of the loss
 *
 * A sample has n inputs x of the loss and n targets t. Its loss is the sum of the terms, added in
 * binary64 from -0 on, and rounded once to binary32. Targets are values, or come from the sample's
 * label: with label smoothing s, the label's target is 1 - s + s / n, and the other targets are s /
 * n (Szegedy and others, "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
 * section 7).
 */
#ifndef MPTL_KERNELS_LOSSES_H
#define MPTL_KERNELS_LOSSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/round.h"

/* Name; constant; whether the gradient reads x, else it gets 0; whether correct samples are counted
 * also if targets are values: true if the values are probabilities of classes. With labels they are
 * always counted. */
#define MPTL_LOSSES(ROW)               \
  ROW(nll_loss, NLL_LOSS, false, true) \
  ROW(mse_loss, MSE_LOSS, true, false)

/* The targets of a batch, in the order of x. One of the pointers is NULL. */
typedef struct mptl_targets {
  const int32_t *labels; /* [samples], each from 0 to n - 1 */
  const float *values;   /* [samples][n] */
} mptl_targets;

/* The results of a batch. */
typedef struct mptl_loss {
  double sum; /* of the rounded losses of valid samples, in order */

  /* If correct samples are counted: how many valid samples have their largest x at the label, or at
   * the largest target. Of several equal ones, the first is the largest. */
  int32_t correct;

  int32_t bad_label; /* the first valid sample whose label is not 0 to n - 1; -1: none. Programs
                        check labels before. */
} mptl_loss;

/* The sizes and settings of a loss. */
typedef struct mptl_loss_shape {
  size_t batch, n;  /* samples; elements of a sample */
  size_t valid;     /* the first samples, which count; the others have loss 0 */
  bool accuracy;    /* whether correct samples are counted */
  double smoothing; /* label smoothing, 0 to 1 */
} mptl_loss_shape;

/* The target of element k. */
static inline MPTL_HD float mptl_target(const mptl_targets *t, const mptl_loss_shape *s,
                                        size_t sample, size_t k) {
  if (t->values != NULL) return t->values[sample * s->n + k];
  double rest = s->smoothing / (double)s->n;
  return (float)((size_t)t->labels[sample] == k ? 1.0 - s->smoothing + rest : rest);
}

/* A sample's loss, from the sum of its terms. A NaN becomes the same NaN on all devices, since
 * formats without a code for NaN keep its sign. */
static inline MPTL_HD float mptl_rounded_sum(double sum) {
  return sum != sum ? mptl_bits_f32(MPTL_F32_INF | MPTL_F32_QUIET) : (float)sum;
}

/* Negative log likelihood, with x = log p: -t x. If t is 0, x does not matter, even if it is
 * infinite: adding -0 does not change a sum. */
static inline MPTL_HD double mptl_term_nll_loss(float x, float t, size_t n) {
  (void)n;
  return t == 0.0f ? -0.0 : -((double)t * (double)x);
}

static inline MPTL_HD float mptl_gradient_nll_loss(float x, float t, float dy, size_t n) {
  (void)x, (void)n;
  return t == 0.0f ? 0.0f : -(t * dy);
}

/* Mean squared error: (x - t)^2 / n. */
static inline MPTL_HD double mptl_term_mse_loss(float x, float t, size_t n) {
  double d = (double)x - (double)t;
  return d * d / (double)n;
}

static inline MPTL_HD float mptl_gradient_mse_loss(float x, float t, float dy, size_t n) {
  return (float)(2 * ((double)x - (double)t) * (double)dy / (double)n);
}

#endif
