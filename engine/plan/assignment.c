/* Groups and assignments: method.md 3.6 and 4. */
#include <stdlib.h>

#include "graph/ops.h"
#include "mptl/plan.h"

const char *mptl_role_name(size_t index) {
  static const char *const names[] = {"v", "dv", "theta", "dtheta"};
  return index < MPTL_ROLES ? names[index] : NULL;
}

/* Adds a high tensor to a group. */
static void add_tensor(mptl_assignment *a, int op, int role, size_t numel, int group) {
  mptl_format format = a->candidates.high[role];
  a->tensors[op][role] = (mptl_assigned){
      .format = format, .numel = numel, .group = group, .next = a->groups[group].first};
  a->groups[group].first = op * MPTL_ROLES + role;
  a->elements += numel;
  a->bits_all_high += numel * (size_t)mptl_format_bits(format);
}

/* Goes through the operators in execution order; every GEMM operator begins a new group. Parameters
 * belong to the group of the operator that computes the input of their operator (method.md 3.6). */
static void assign_groups(mptl_assignment *a) {
  const mptl_graph *g = a->graph;
  int group = 0;
  for (int i = 0; i <= g->n_ops; i++) a->groups[i].first = -1;
  for (int i = 0; i < g->n_ops; i++) {
    const mptl_op *op = &g->ops[i];
    if (op->kind->gemm) group++;
    int theta_group = op->n_in > 0 ? a->tensors[mptl_producer(g, op, 0)][MPTL_V].group : group;
    size_t v = mptl_shape_numel(g->values[op->out].shape) * (size_t)a->batch,
           theta = mptl_trained_elements(g, op);
    for (int role = 0; role < MPTL_ROLES; role++) {
      bool parameter = role == MPTL_THETA || role == MPTL_DTHETA;
      add_tensor(a, i, role, parameter ? theta : v, parameter ? theta_group : group);
    }
    a->groups[group].activations += v;
    a->groups[theta_group].parameters += theta;
  }
  a->n_groups = group + 1;
  for (int i = 0; i < a->n_groups; i++)
    a->groups[i].numel = 2 * (a->groups[i].activations + a->groups[i].parameters);
  a->bits_now = a->bits_all_high;
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

static void set_format(mptl_assignment *a, mptl_assigned *t, mptl_format format, bool low) {
  if (t->low) a->elements_low -= t->numel;
  if (low) a->elements_low += t->numel;
  a->bits_now -= t->numel * (size_t)mptl_format_bits(t->format);
  a->bits_now += t->numel * (size_t)mptl_format_bits(format);
  t->format = format;
  t->low = low;
}

static void set_low(mptl_assignment *a, mptl_assigned *t, int role, bool low) {
  set_format(a, t, low ? a->candidates.low[role] : a->candidates.high[role], low);
}

mptl_status mptl_assignment_set_low(mptl_assignment *a, int op, mptl_role role, bool low) {
  MPTL_TRY(check_tensor(a, op, role));
  set_low(a, &a->tensors[op][role], role, low);
  return MPTL_OK;
}

mptl_status mptl_assignment_set(mptl_assignment *a, int op, mptl_role role, mptl_format format) {
  MPTL_TRY(check_tensor(a, op, role));
  set_format(a, &a->tensors[op][role], format,
             mptl_format_bits(format) < mptl_format_bits(a->candidates.high[role]));
  return MPTL_OK;
}

mptl_status mptl_assignment_set_group(mptl_assignment *a, int group, bool low) {
  if (group < 0 || group >= a->n_groups)
    return mptl_fail(MPTL_EINVAL, "group %d: the graph has groups 0 to %d", group, a->n_groups - 1);
  for (int i = a->groups[group].first; i >= 0;) {
    mptl_assigned *t = &a->tensors[i / MPTL_ROLES][i % MPTL_ROLES];
    set_low(a, t, i % MPTL_ROLES, low);
    i = t->next;
  }
  a->groups[group].low = low;
  return MPTL_OK;
}

mptl_ratios mptl_assignment_ratios(const mptl_assignment *a) {
  return (mptl_ratios){.elements = a->elements,
                       .elements_low = a->elements_low,
                       .bits_all_high = a->bits_all_high,
                       .bits_now = a->bits_now,
                       .ratio_lo = (double)a->elements_low / (double)a->elements,
                       .bits_ratio = 2.0 * ((double)a->bits_all_high - (double)a->bits_now) /
                                     (double)a->bits_all_high};
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
