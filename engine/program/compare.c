/* How a parameter's gradient, and what SGD makes of it, differ from a reference: see mptl/measure.h. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/layers.h"
#include "mptl/measure.h"

enum { PIECE = 2048 }; /* elements looked at together, on the stack */

static void add_difference(mptl_difference *d, double x, double reference) {
  d->size += fabs(reference);
  d->absolute += fabs(x - reference);
}

/* Elements [at, at + n) of what SGD would subtract, learning rate apart: the momentum buffer as the update's own kernel leaves it. */
static void find_update(float *update, const mptl_gradients *g, const float *gradient, size_t at, size_t n, const mptl_sgd *sgd) {
  float parameter[PIECE];
  memcpy(parameter, g->parameter + at, n * sizeof *parameter);
  memcpy(update, g->momentum + at, n * sizeof *update);
  mptl_layers()->sgd(parameter, update, gradient + at, n, sgd);
}

mptl_status mptl_compare_gradients(const mptl_gradients *g, const mptl_update *u, bool first, mptl_difference *in_gradient,
                                   mptl_difference *in_update) {
  if (!(u->loss_scale > 0)) return mptl_fail(MPTL_EINVAL, "loss scale: %g, must be above 0", u->loss_scale);
  mptl_sgd scaled = {.momentum = (float)u->momentum,
                     .weight_decay = (float)u->weight_decay,
                     .inv_scale = (float)(1.0 / u->loss_scale),
                     .first = first};
  mptl_sgd plain = scaled;
  plain.inv_scale = 1.0f;
  *in_gradient = *in_update = (mptl_difference){0};
  for (size_t at = 0; at < g->n; at += PIECE) {
    size_t n = g->n - at < PIECE ? g->n - at : PIECE;
    float update[PIECE], reference[PIECE];
    find_update(update, g, g->gradient, at, n, &scaled);
    find_update(reference, g, g->reference, at, n, &plain);
    for (size_t i = 0; i < n; i++) {
      add_difference(in_gradient, (double)g->gradient[at + i] / u->loss_scale, (double)g->reference[at + i]);
      add_difference(in_update, (double)update[i], (double)reference[i]);
    }
  }
  return MPTL_OK;
}
