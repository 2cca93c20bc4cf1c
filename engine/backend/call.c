/* Makes calls: the three structs of an operator in one. See backend.h. */
#include <string.h>

#include "backend/backend.h"

/* Where the step counts the exponents of a tensor; NULL: it does not count them. */
static mptl_exponents *exponents_of(const mptl_step *step, int tensor) {
  return step->exponents != NULL ? &step->exponents[tensor / MPTL_ROLES][tensor % MPTL_ROLES]
                                 : NULL;
}

/* The sink of a destination. */
static mptl_sink sink_of(const mptl_destination *d, const mptl_step *step) {
  mptl_sink sink = {.data = d->data,
                    .size = d->size,
                    .rounder = d->rounder,
                    .index0 = d->index0,
                    .accumulate = d->accumulate,
                    .wanted = d->wanted,
                    .part = d->part};
  if (step == NULL || !d->wanted) return sink;
  sink.key = mptl_tensor_key(step, d->tensor);
  sink.stats = &step->stats[d->tensor / MPTL_ROLES][d->tensor % MPTL_ROLES];
  sink.exponents = exponents_of(step, d->tensor);
  return sink;
}

/* How an operator rounds its weights in this step. */
static mptl_rounding weights_of(const mptl_unrounded *w, const mptl_step *step) {
  mptl_rounding weights = {.src = w->master, .n = w->n, .rounder = w->rounder};
  if (step == NULL || w->master == NULL) return weights;
  if (w->rounder != NULL) weights.key = mptl_tensor_key(step, w->tensor);
  if (!step->counts_parameters) return weights;
  if (w->rounder != NULL)
    weights.stats = &step->stats[w->tensor / MPTL_ROLES][w->tensor % MPTL_ROLES];
  weights.exponents = exponents_of(step, w->tensor);
  return weights;
}

static void add_operands(mptl_call *c, const mptl_operands *on, const mptl_step *step) {
  int n = c->op->n_in > 0 ? c->op->n_in : 1;
  for (int k = 0; k < n; k++) c->in[k] = on->in[k];
  for (int k = 0; k < c->op->n_in; k++) c->dx[k] = sink_of(&on->dx[k], step);
  c->out = on->out;
  c->dy = on->dy;
  c->may_overwrite_dy = on->may_overwrite_dy;
  c->y = sink_of(&on->y, step);
  c->theta_rounder = on->theta_rounder;
  c->theta = on->theta;
  c->weights = weights_of(&on->weights, step);
  c->buffers = on->buffers;
  c->dtheta = on->dtheta;
  c->saved = on->saved;
  c->targets = on->targets;
  c->loss = on->loss;
}

void mptl_call_of(mptl_call *call, const mptl_member *member, const mptl_step *step,
                  void *scratch) {
  const mptl_operator *is = member->is;
  memset(call, 0,
         offsetof(mptl_call, in)); /* operands that the operator does not have are not read */
  call->device = is->device;
  call->graph = is->graph;
  call->op = is->op;
  call->batch = is->batch;
  call->train = is->train;
  call->compute = is->compute;
  call->state = is->state;
  call->from = is->from;
  call->scratch = scratch;
  call->ranging = false;
  call->n_valid = 0;
  if (member->on != NULL) add_operands(call, member->on, step);
  if (step == NULL) return;
  call->n_valid = step->n_valid;
  call->key = mptl_make_key(step->seed, MPTL_STREAM_DROPOUT, (uint32_t)(is->op - is->graph->ops),
                            step->number);
  if (is->op->n_in == 0) call->in[0].data = step->images;
}

void mptl_call_find_ranges(mptl_call *call, bool forward, mptl_round_stats *found) {
  mptl_sink *sinks;
  int n = mptl_call_sinks(call, forward, &sinks);
  for (int k = 0; k < n; k++) {
    sinks[k].ranging = true;
    sinks[k].exponents = NULL;
    sinks[k].stats = &found[k];
  }
  call->weights.stats = NULL;
  call->weights.exponents = NULL;
  call->ranging = true;
}
