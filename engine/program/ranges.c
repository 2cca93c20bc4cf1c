/* FP(e,m,auto): bias shifts that are fitted to an operator's results before the first of them is rounded. This is the one place that knows of
 * it: a backend only says how large results are.
 *
 * A stage is asked once for each of its operators that has such results, in the order in which they come about, so that what goes into
 * them is rounded as it will be. Then it is run as always.
 */
#include "program/inside.h"

static bool fits(const mptl_destination *d) { return d->wanted && d->rounder->format.auto_bias; }

/* The destinations of an operator in a direction. Returns how many. */
static int destinations(const mptl_member *m, bool forward, const mptl_destination **list) {
  *list = forward ? &m->on->y : m->on->dx;
  return forward ? 1 : m->is->op->n_in;
}

static mptl_status fit_member(mptl_program *p, const mptl_stage *stage, int i, bool forward) {
  const mptl_destination *list;
  float largest[MPTL_MAX_INPUTS];
  bool any = false;
  int n = destinations(&stage->members[i], forward, &list);
  for (int k = 0; k < n; k++) any = any || fits(&list[k]);
  if (!any) return MPTL_OK;
  MPTL_TRY(p->backend->find_ranges(p->device, stage, &p->step, forward, i, largest));
  p->step.ranged = forward;
  for (int k = 0; k < n; k++)
    if (fits(&list[k])) mptl_rounder_fit(list[k].rounder, largest[k]);
  return MPTL_OK;
}

mptl_status mptl_program_fit_results(mptl_program *p, const mptl_program_stage *s, bool forward) {
  p->step.ranged = false;
  for (int i = 0; i < s->run.n; i++) MPTL_TRY(fit_member(p, &s->run, forward ? i : s->run.n - 1 - i, forward));
  return MPTL_OK;
}

mptl_status mptl_program_fit_array(const mptl_program *p, mptl_rounder *rounder, const float *x, size_t n) {
  float largest;
  if (!rounder->format.auto_bias) return MPTL_OK;
  MPTL_TRY(p->backend->max_abs(p->device, &largest, x, n));
  mptl_rounder_fit(rounder, largest);
  return MPTL_OK;
}
