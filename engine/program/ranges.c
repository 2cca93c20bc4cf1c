/* FP(e,m,auto), method.md 1.4: a bias shift that fits the largest of the values that share it. So a
 * program finds the range of a stage's results before it runs the stage. A backend only reports
 * ranges; this file sets the shifts.
 *
 * For each operator of a stage that has such results, the backend finds their range. This is done
 * in the order in which the operators run: the results of one operator are rounded, with the shift
 * just found, before the next one reads them. Then the stage runs as with any other format.
 */
#include "program/inside.h"

static bool fits(const mptl_destination *d) { return d->wanted && d->rounder->format.auto_bias; }

/* Sets *list to an operator's destinations: the output, or the gradients of the inputs. Returns how
 * many. */
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
  for (int i = 0; i < s->run.n; i++)
    MPTL_TRY(fit_member(p, &s->run, forward ? i : s->run.n - 1 - i, forward));
  return MPTL_OK;
}

mptl_status mptl_program_fit_array(const mptl_program *p, mptl_rounder *rounder, const float *x,
                                   size_t n) {
  float largest;
  if (!rounder->format.auto_bias) return MPTL_OK;
  MPTL_TRY(p->backend->max_abs(p->device, &largest, x, n));
  mptl_rounder_fit(rounder, largest);
  return MPTL_OK;
}
