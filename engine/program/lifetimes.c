/* Stages and lifetimes: see lifetimes.h. */
#include "program/lifetimes.h"

#include <string.h>

/* Marks the loss and every operator on which it depends. */
static mptl_status mark_live(mptl_lifetime *t, const mptl_graph *g) {
  if (g->loss < 0) return mptl_fail(MPTL_EINVAL, "program: the graph has no loss");
  t[g->loss].live = true;
  for (int i = g->loss; i >= 0; i--)
    for (int k = 0; t[i].live && k < g->ops[i].n_in; k++)
      t[mptl_producer(g, &g->ops[i], k)].live = true;
  return MPTL_OK;
}

/* A pointwise operator joins the stage of its only consumer, if the consumer is pointwise too and
 * nothing else needs the operator's output in memory: no backward formula, no view, no reader after
 * the step. The function goes through the graph from its end, so the consumer has its stage
 * already. */
static void find_stages(mptl_lifetime *t, const mptl_graph *g, mptl_lifetime_options options) {
  for (int i = g->n_ops - 1; i >= 0; i--) {
    const mptl_op_kind *kind = g->ops[i].kind;
    int consumers = 0, consumer = -1;
    bool read_later = options.keep_all || mptl_graph_is_output(g, i) ||
                      (options.train && kind->backward_reads_out);
    for (int r = g->ops[i].first_reader; r >= 0; r = mptl_next_reader(g, r)) {
      consumers++;
      consumer = mptl_reader_op(r);
      bool view = g->ops[consumer].in[mptl_reader_input(r)] != g->ops[i].out;
      read_later = read_later || view;
    }
    bool joins =
        consumers == 1 && !read_later && kind->pointwise && g->ops[consumer].kind->pointwise;
    if (joins && options.train && g->ops[consumer].kind->backward_reads_in) joins = false;
    if (joins && t[t[consumer].stage].stage_ops >= options.stage_ops) joins = false;
    t[i].stage = joins ? t[consumer].stage : i;
    t[t[i].stage].stage_ops++;
  }
}

/* Links the operators of each stage, from its last operator to its first. */
static void link_stages(mptl_lifetime *t, const mptl_graph *g) {
  for (int i = 0; i < g->n_ops; i++) t[i].before = -1;
  for (int i = 0; i < g->n_ops; i++) {
    mptl_lifetime *last = &t[t[i].stage]; /* last->before is the latest one that was linked */
    if (last == &t[i]) continue;
    t[i].before = last->before;
    last->before = i;
  }
}

/* Whether only slices read operator i's output, all of them live, and together they cover all
 * channels once. Each slice then writes its own channels of the gradient. */
static bool in_parts(const mptl_lifetime *t, const mptl_graph *g, int i) {
  if (!mptl_graph_shared_out(g, i)) return false;
  for (int r = g->ops[i].first_reader; r >= 0; r = mptl_next_reader(g, r))
    if (!t[mptl_reader_op(r)].live) return false;
  return true;
}

/* Extends the lifetimes of operator i's inputs until it has read them. Of the operators that send a
 * gradient to a value, the first in backward order stores it, and the others add to it. */
static void note_reads(mptl_lifetime *t, const mptl_graph *g, int i, bool train) {
  const mptl_op *op = &g->ops[i];
  int stage = t[i].stage, backward = mptl_backward_time(g, stage);
  for (int k = 0; k < op->n_in; k++) {
    mptl_lifetime *from = &t[mptl_producer(g, op, k)];
    int last_read = train && t[i].live && op->kind->backward_reads_in ? backward : stage;
    if (last_read > from->value.last) from->value.last = last_read;
    if (!t[i].live || !from->wants_gradient) continue;
    t[i].accumulate[k] = from->readers > 0 && !from->in_parts;
    if (from->readers++ == 0) from->gradient.first = backward;
  }
}

mptl_status mptl_find_lifetimes(mptl_lifetime *t, const mptl_graph *g,
                                mptl_lifetime_options options) {
  memset(t, 0, (size_t)g->n_ops * sizeof *t);
  MPTL_TRY(mark_live(t, g));
  find_stages(t, g, options);
  link_stages(t, g);
  for (int i = 0; i < g->n_ops; i++) {
    int backward = mptl_backward_time(g, t[i].stage);
    t[i].wants_gradient = options.train && t[i].live &&
                          (g->ops[i].kind->id != MPTL_OP_INPUT || options.input_gradient);
    t[i].value.first = t[i].value.last = t[i].stage;
    t[i].gradient.first = t[i].gradient.last = backward;
    t[i].in_parts = t[i].wants_gradient && in_parts(t, g, i);
    if (options.train && t[i].live && g->ops[i].kind->backward_reads_out)
      t[i].value.last = backward;
    /* The caller reads outputs and the input's gradient after the step. */
    if (mptl_graph_is_output(g, i)) t[i].value.last = 2 * g->n_ops;
    if (g->ops[i].kind->id == MPTL_OP_INPUT) t[i].gradient.last = 2 * g->n_ops;
  }
  for (int stage = g->n_ops - 1; stage >= 0; stage--) {
    if (t[stage].stage != stage) continue;
    for (int i = stage; i >= 0; i = t[i].before) note_reads(t, g, i, options.train);
  }
  for (int i = 0; options.keep_all && i < g->n_ops; i++) {
    t[i].value.first = t[i].gradient.first = 0;
    t[i].value.last = t[i].gradient.last = 2 * g->n_ops;
  }
  return MPTL_OK;
}
