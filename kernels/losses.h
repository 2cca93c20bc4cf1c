/* Losses: what a sample's loss is, by element, for C and CUDA. A new loss is a row and two functions here, a row in kernels/operators.h and one
 * in engine/graph/reduce.c.
 *
 * A sample has n numbers x, what the network says, and n targets t. Its loss is the sum of the elements' terms, added in binary64, in
 * order, from -0 on, and rounded once to binary32; the gradient of element k is the elements' own, times dy, that of the loss. Targets are numbers, or the
 * sample's label: then the label's own target is 1 - s + s / n, the others are s / n, with label smoothing s (Szegedy and others, "Rethinking
 * the Inception Architecture for Computer Vision", CVPR 2016, section 7); without, s is 0.
 */
#ifndef MPTL_KERNELS_LOSSES_H
#define MPTL_KERNELS_LOSSES_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/round.h"

/* name and constant, as in kernels/operators.h */
#define MPTL_LOSSES(ROW)  \
  ROW(nll_loss, NLL_LOSS) \
  ROW(mse_loss, MSE_LOSS)

/* A batch's targets: one of them, the other is NULL. */
typedef struct mptl_targets {
  const int32_t *labels; /* [samples], each 0 to n - 1 */
  const float *values;   /* [samples][n] */
} mptl_targets;

/* What a loss finds out of a batch. */
typedef struct mptl_loss {
  double sum;      /* of the rounded losses of the valid samples, in order */
  int32_t correct; /* valid samples whose largest x, the first of equals, is the label's, or where the largest target is */
  int32_t
      bad_label; /* of kernels alone, programs check labels before: the first valid sample whose label is out of range; -1: none */
} mptl_loss;

/* Its numbers: of each sample. */
typedef struct mptl_loss_shape {
  size_t batch, n;
  size_t valid;     /* samples from here on have loss 0 */
  double smoothing; /* label smoothing, 0 to 1 */
} mptl_loss_shape;

static inline MPTL_HD float mptl_target(const mptl_targets *t, const mptl_loss_shape *s, size_t sample, size_t k) {
  if (t->values != NULL) return t->values[sample * s->n + k];
  double rest = s->smoothing / (double)s->n;
  return (float)((size_t)t->labels[sample] == k ? 1.0 - s->smoothing + rest : rest);
}

/* A sample's loss from the sum of its terms. A NaN is the same one on every device: formats without NaN keep its sign. */
static inline MPTL_HD float mptl_rounded_sum(double sum) {
  return sum != sum ? mptl_bits_f32(MPTL_F32_INF | MPTL_F32_QUIET) : (float)sum;
}

/* Negative log likelihood of x = log p: -t x. What has no weight is not looked at; to add -0 changes nothing. */
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
