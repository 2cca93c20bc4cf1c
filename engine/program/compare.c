/* How a parameter's gradient, and what SGD makes of it, differ from a reference: see mptl_model_compare_gradient. */
#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "mptl/program.h"

enum { PIECE = 2048 }; /* elements looked at together, on the stack */

static void add_difference(mptl_difference *d, double x, double reference) {
  d->size += fabs(reference);
  d->absolute += fabs(x - reference);
}

/* What SGD would subtract from n parameters, learning rate apart: the momentum buffer as the update itself computes it, on copies. */
static void find_update(float *update, const float *p, const float *buf, const float *g, size_t n, const mptl_sgd *sgd) {
  float untouched[PIECE];
  memcpy(untouched, p, n * sizeof *p);
  memcpy(update, buf, n * sizeof *buf);
  mptl_backend_cpu.sgd(untouched, update, g, n, sgd);
}

mptl_status mptl_model_compare_gradient(const mptl_model *m, int param, const float *gradient, const mptl_update *u,
                                        mptl_difference *in_gradient, mptl_difference *in_update) {
  if (!(u->loss_scale > 0)) return mptl_fail(MPTL_EINVAL, "loss scale: %g, must be above 0", u->loss_scale);
  if (m->grads[param] == NULL)
    return mptl_fail(MPTL_EINVAL, "%s: the model has no gradient of it, run a training program first",
                     m->graph->params[param].name);
  mptl_sgd scaled = {.momentum = (float)u->momentum,
                     .weight_decay = (float)u->weight_decay,
                     .inv_scale = (float)(1.0 / u->loss_scale),
                     .first = m->updates == 0};
  mptl_sgd plain = scaled;
  plain.inv_scale = 1.0f;
  *in_gradient = *in_update = (mptl_difference){0};
  const float *p = m->params[param]->data, *buf = m->momenta[param]->data, *reference = m->grads[param]->data;
  for (size_t at = 0, numel = m->graph->params[param].numel; at < numel; at += PIECE) {
    size_t n = numel - at < PIECE ? numel - at : PIECE;
    float ours[PIECE], theirs[PIECE];
    find_update(ours, p + at, buf + at, gradient + at, n, &scaled);
    find_update(theirs, p + at, buf + at, reference + at, n, &plain);
    for (size_t i = 0; i < n; i++) {
      add_difference(in_gradient, (double)gradient[at + i] / u->loss_scale, (double)reference[at + i]);
      add_difference(in_update, (double)ours[i], (double)theirs[i]);
    }
  }
  return MPTL_OK;
}
