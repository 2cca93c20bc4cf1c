#include "program/lifetimes.h"

#include <string.h>

#include "graph/ops.h"

static mptl_status mark_live(mptl_lifetime *t, const mptl_graph *g) {
  int loss = g->n_ops - 1;
  if (g->n_ops == 0 || g->ops[loss].kind != &mptl_op_nll_loss)
    return mptl_fail(MPTL_EINVAL, "program: the graph's last operator is %s, must be nll_loss",
                     g->n_ops ? g->ops[loss].kind->name : "missing");
  t[loss].live = true;
  for (int i = loss; i >= 0; i--)
    for (int k = 0; t[i].live && k < g->ops[i].n_in; k++) t[mptl_producer(g, &g->ops[i], k)].live = true;
  return MPTL_OK;
}

mptl_status mptl_find_lifetimes(mptl_lifetime *t, const mptl_graph *g, bool train, bool input_gradient) {
  memset(t, 0, (size_t)g->n_ops * sizeof *t);
  MPTL_TRY(mark_live(t, g));
  for (int i = 0; i < g->n_ops; i++) {
    int backward = mptl_backward_time(g, i);
    t[i].wants_gradient = train && t[i].live && (g->ops[i].kind != &mptl_op_input || input_gradient);
    t[i].value.first = t[i].value.last = i;
    t[i].gradient.first = t[i].gradient.last = backward;
    if (train && t[i].live && g->ops[i].kind->backward_reads_out) t[i].value.last = backward;
    /* What is read after the step: the last two outputs, which are small, and the input's gradient. */
    if (i >= g->n_ops - 2) t[i].value.last = 2 * g->n_ops;
    if (g->ops[i].kind == &mptl_op_input) t[i].gradient.last = 2 * g->n_ops;
  }
  /* Consumers in order of their backward: the first one writes a gradient, the others add to it. */
  for (int i = g->n_ops - 1; i >= 0; i--) {
    const mptl_op *op = &g->ops[i];
    for (int k = 0; k < op->n_in; k++) {
      mptl_lifetime *from = &t[mptl_producer(g, op, k)];
      int last_read = train && t[i].live && op->kind->backward_reads_in ? mptl_backward_time(g, i) : i;
      if (last_read > from->value.last) from->value.last = last_read;
      if (!t[i].live || !from->wants_gradient) continue;
      t[i].accumulate[k] = from->readers > 0;
      if (from->readers++ == 0) from->gradient.first = mptl_backward_time(g, i);
    }
  }
  return MPTL_OK;
}
