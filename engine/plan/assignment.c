/* Groups and assignments: method.md 3.6 and 4. */
#include <stdlib.h>

#include "graph/ops.h"
#include "mptl/plan.h"

const char *mptl_role_name(size_t index) {
  static const char *const names[] = {"v", "dv", "theta", "dtheta"};
  return index < MPTL_ROLES ? names[index] : NULL;
}

/* The number of elements of an operator's trained parameters. */
static size_t trained_elements(const mptl_graph *g, const mptl_op *op) {
  size_t n = 0;
  for (int i = 0; i < op->n_param; i++) {
    const mptl_param *p = &g->params[op->first_param + i];
    if (!p->buffer) n += p->numel;
  }
  return n;
}

/* Goes through the operators in execution order; every GEMM operator begins a new group. Parameters
 * belong to the group of the operator that computes the input of their operator (method.md 3.6). */
static void assign_groups(mptl_assignment *a) {
  const mptl_graph *g = a->graph;
  int group = 0;
  for (int i = 0; i < g->n_ops; i++) {
    const mptl_op *op = &g->ops[i];
    if (op->kind->gemm) group++;
    int theta_group = op->n_in > 0 ? a->tensors[mptl_producer(g, op, 0)][MPTL_V].group : group;
    size_t v = mptl_shape_numel(g->values[op->out].shape) * (size_t)a->batch,
           theta = trained_elements(g, op);
    for (int role = 0; role < MPTL_ROLES; role++) {
      bool parameter = role == MPTL_THETA || role == MPTL_DTHETA;
      a->tensors[i][role] = (mptl_assigned){.format = a->candidates.high[role],
                                            .numel = parameter ? theta : v,
                                            .group = parameter ? theta_group : group};
    }
    a->groups[group].activations += v;
    a->groups[theta_group].parameters += theta;
  }
  a->n_groups = group + 1;
  for (int i = 0; i < a->n_groups; i++)
    a->groups[i].numel = 2 * (a->groups[i].activations + a->groups[i].parameters);
}

mptl_status mptl_assignment_create(mptl_assignment **assignment, const mptl_graph *graph, int batch,
                                   const mptl_candidates *candidates) {
  if (graph->n_ops == 0) return mptl_fail(MPTL_EINVAL, "assignment: the graph has no operators");
  if (batch < 1) return mptl_fail(MPTL_EINVAL, "batch: %d, must be at least 1", batch);
  mptl_assignment *a = calloc(1, sizeof *a);
  if (a != NULL) {
    a->groups = calloc((size_t)graph->n_ops + 1, sizeof *a->groups);
    a->tensors = calloc((size_t)graph->n_ops, sizeof *a->tensors);
  }
  if (a == NULL || a->groups == NULL || a->tensors == NULL) {
    mptl_assignment_destroy(a);
    return mptl_fail(MPTL_ENOMEM, "assignment: no memory");
  }
  a->graph = graph;
  a->batch = batch;
  a->candidates = *candidates;
  a->n_ops = graph->n_ops;
  assign_groups(a);
  *assignment = a;
  return MPTL_OK;
}

void mptl_assignment_destroy(mptl_assignment *a) {
  if (a == NULL) return;
  free(a->groups);
  free(a->tensors);
  free(a);
}

static mptl_status check_tensor(const mptl_assignment *a, int op, mptl_role role) {
  if (op < 0 || op >= a->n_ops)
    return mptl_fail(MPTL_EINVAL, "operator %d: the graph has operators 0 to %d", op, a->n_ops - 1);
  if ((int)role < 0 || role >= MPTL_ROLES)
    return mptl_fail(MPTL_EINVAL, "role %d: accepted are v, dv, theta, dtheta", (int)role);
  if (a->tensors[op][role].numel == 0)
    return mptl_fail(MPTL_EINVAL, "%s of %s: the operator has no parameters", mptl_role_name(role),
                     a->graph->ops[op].name);
  return MPTL_OK;
}

static void set_low(mptl_assignment *a, mptl_assigned *tensor, int role, bool low) {
  tensor->format = low ? a->candidates.low[role] : a->candidates.high[role];
  tensor->low = low;
}

mptl_status mptl_assignment_set_low(mptl_assignment *a, int op, mptl_role role, bool low) {
  MPTL_TRY(check_tensor(a, op, role));
  set_low(a, &a->tensors[op][role], role, low);
  return MPTL_OK;
}

mptl_status mptl_assignment_set(mptl_assignment *a, int op, mptl_role role, mptl_format format) {
  MPTL_TRY(check_tensor(a, op, role));
  a->tensors[op][role].format = format;
  a->tensors[op][role].low = mptl_format_bits(format) < mptl_format_bits(a->candidates.high[role]);
  return MPTL_OK;
}

mptl_status mptl_assignment_set_group(mptl_assignment *a, int group, bool low) {
  if (group < 0 || group >= a->n_groups)
    return mptl_fail(MPTL_EINVAL, "group %d: the graph has groups 0 to %d", group, a->n_groups - 1);
  for (int i = 0; i < a->n_ops; i++)
    for (int role = 0; role < MPTL_ROLES; role++)
      if (a->tensors[i][role].group == group) set_low(a, &a->tensors[i][role], role, low);
  a->groups[group].low = low;
  return MPTL_OK;
}

mptl_ratios mptl_assignment_ratios(const mptl_assignment *a) {
  mptl_ratios m = {0};
  for (int i = 0; i < a->n_ops; i++) {
    for (int role = 0; role < MPTL_ROLES; role++) {
      const mptl_assigned *t = &a->tensors[i][role];
      m.elements += t->numel;
      if (t->low) m.elements_low += t->numel;
      m.bits_all_high += t->numel * (size_t)mptl_format_bits(a->candidates.high[role]);
      m.bits_now += t->numel * (size_t)mptl_format_bits(t->format);
    }
  }
  m.ratio_lo = (double)m.elements_low / (double)m.elements;
  m.bits_ratio = 2.0 * ((double)m.bits_all_high - (double)m.bits_now) / (double)m.bits_all_high;
  return m;
}

mptl_status mptl_assignment_promote(mptl_assignment *a, const mptl_op_stats *stats,
                                    double threshold,
                                    void (*on_promote)(void *context, int op, mptl_role role),
                                    void *context) {
  if (!(threshold > 0 && threshold <= 1))
    return mptl_fail(MPTL_EINVAL, "threshold: %g, must be above 0 and at most 1", threshold);
  for (int i = 0; i < a->n_ops; i++) {
    const mptl_role roles[] = {MPTL_V, MPTL_THETA};
    for (int k = 0; k < 2; k++) {
      mptl_assigned *t = &a->tensors[i][roles[k]];
      const mptl_round_stats *s = &stats[i][roles[k]];
      if (!t->low || s->elements == 0 || (double)s->overflow / (double)s->elements < threshold)
        continue;
      set_low(a, t, roles[k], false);
      if (on_promote != NULL) on_promote(context, i, roles[k]);
    }
  }
  return MPTL_OK;
}
