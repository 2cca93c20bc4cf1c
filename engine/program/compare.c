/* Compares a parameter's gradient and its update with a reference: see mptl/compare.h. */
#include <math.h>

#include "mptl/compare.h"
#include "program/model.h"

static void add_difference(mptl_difference *d, double x, double reference) {
  d->size += fabs(reference);
  d->absolute += fabs(x - reference);
}

/* The direction of element i's update (kernels/optimizers.h) for a gradient. Works on copies. */
static float direction(const mptl_gradients *g, mptl_optimizer_id id, float gradient, size_t i,
                       const mptl_factors *factors) {
  float p = g->parameter[i], state[MPTL_MAX_STATES];
  for (int k = 0; k < MPTL_MAX_STATES; k++) state[k] = g->state[k] != NULL ? g->state[k][i] : 0.0f;
  switch (id) {
#define UPDATE(name, NAME, states) \
  case MPTL_OPTIMIZER_##NAME:      \
    return mptl_update_##name(&p, state, gradient, factors);
    MPTL_OPTIMIZERS(UPDATE)
#undef UPDATE
    default:
      return 0;
  }
}

mptl_status mptl_compare_gradients(const mptl_gradients *g, const mptl_optimizer *o,
                                   const mptl_update *u, int group, int64_t updates,
                                   mptl_difference *in_gradient, mptl_difference *in_update) {
  mptl_factors factors[MPTL_PARAMETER_GROUPS];
  if (group < 0 || group >= u->n_groups)
    return mptl_fail(MPTL_EINVAL, "parameter group %d: there are settings for %d", group,
                     u->n_groups);
  MPTL_TRY(mptl_update_factors(factors, o, u, updates));
  mptl_factors scaled = factors[group], plain = factors[group];
  plain.gradient = 1.0f;
  *in_gradient = *in_update = (mptl_difference){0};
  for (size_t i = 0; i < g->n; i++) {
    float update = direction(g, o->id, g->gradient[i], i, &scaled),
          reference = direction(g, o->id, g->reference[i], i, &plain);
    add_difference(in_gradient, (double)g->gradient[i] / u->loss_scale, (double)g->reference[i]);
    add_difference(in_update, (double)update, (double)reference);
  }
  return MPTL_OK;
}
