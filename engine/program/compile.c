/* Compiles a graph for a batch size, once: finds stages and lifetimes, creates the backend's
 * operators. */
#include <stdlib.h>

#include "program/inside.h"

/* Lists the stages in the order of their last operators, and the operators of each stage in graph
 * order. */
static void list_stages(mptl_program *p) {
  mptl_member *members = p->members;
  for (int last = 0; last < p->graph->n_ops; last++) {
    const mptl_lifetime *life = &p->nodes[last].life;
    if (life->stage != last) continue;
    for (int i = last, at = life->stage_ops - 1; i >= 0; i = p->nodes[i].life.before, at--) {
      p->nodes[i].place = at;
      members[at] = (mptl_member){&p->nodes[i].is, &p->nodes[i].on};
    }
    p->stages[p->n_stages++] =
        (mptl_program_stage){.last = last, .run = {.n = life->stage_ops, .members = members}};
    members += life->stage_ops;
  }
}

/* Sets which member of its stage makes each input of an operator. */
static void find_members(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_node *node = &p->nodes[i];
    for (int k = 0; k < node->is.op->n_in; k++) {
      const mptl_node *from = &p->nodes[mptl_producer(p->graph, node->is.op, k)];
      node->is.from[k] = from->life.stage == node->life.stage ? from->place : -1;
    }
  }
}

static mptl_status find_stages(mptl_program *p) {
  int n = p->graph->n_ops;
  mptl_lifetime *lives = calloc((size_t)n, sizeof *lives);
  if (lives == NULL) return mptl_fail(MPTL_ENOMEM, "program: no memory");
  mptl_lifetime_options options = {.train = p->options.train,
                                   .input_gradient = p->options.input_gradient,
                                   .keep_all = p->options.keep_all,
                                   .stage_ops = p->backend->max_stage_ops};
  mptl_status status = mptl_find_lifetimes(lives, p->graph, options);
  for (int i = 0; i < n; i++) {
    p->nodes[i].life = lives[i];
    p->nodes[i].is = (mptl_operator){.device = p->device,
                                     .graph = p->graph,
                                     .op = &p->graph->ops[i],
                                     .batch = p->options.batch,
                                     .train = p->options.train,
                                     .compute = p->options.compute};
  }
  free(lives);
  MPTL_TRY(status);
  list_stages(p);
  find_members(p);
  return MPTL_OK;
}

static mptl_status create_operators(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_operator *o = &p->nodes[i].is;
    const mptl_op *op = o->op;
    int least = mptl_graph_least_batch(p->graph, i);
    if (op->n_param > MPTL_MAX_PARAMS)
      return mptl_fail(MPTL_EUNSUPPORTED, "%s: %d parameters, at most %d", op->name, op->n_param,
                       MPTL_MAX_PARAMS);
    if (o->train && o->batch < least)
      return mptl_fail(MPTL_EINVAL,
                       "%s (%s): batch %d: it normalises one value per channel, accepted are "
                       "batches of at least %d",
                       op->name, op->kind->name, o->batch, least);
    MPTL_TRY(mptl_in_operator(p->backend->op_create(p->device, &o->state, o), op));
    p->memory.state += mptl_saved_bytes(p->graph, op);
  }
  return MPTL_OK;
}

/* The number of arrays that a trained parameter needs: master, gradient, optimizer state. */
static size_t trained_arrays(const mptl_program *p) {
  const mptl_optimizer *o = p->model != NULL ? p->model->optimizer : p->options.optimizer;
  return 2 + (size_t)(o != NULL ? o : mptl_optimizer_at(MPTL_OPTIMIZER_SGD))->n_states;
}

mptl_status mptl_program_compile(mptl_program *p) {
  size_t n = (size_t)p->graph->n_ops;
  p->backend = p->device->backend;
  p->loss = p->graph->loss;
  p->nodes = calloc(n, sizeof *p->nodes);
  p->stages = calloc(n, sizeof *p->stages);
  p->members = calloc(n, sizeof *p->members);
  p->blocks = calloc(2 * n, sizeof *p->blocks);
  p->in_place = calloc(2 * n, sizeof *p->in_place);
  p->rounders = calloc(n, sizeof *p->rounders);
  p->dx_rounders = calloc(n, sizeof *p->dx_rounders);
  p->params = calloc((size_t)p->graph->n_params + 1, sizeof *p->params);
  p->theta.arrays = calloc((size_t)p->graph->n_params + 1, sizeof *p->theta.arrays);
  p->dtheta.arrays = calloc((size_t)p->graph->n_params + 1, sizeof *p->dtheta.arrays);
  p->costs = calloc(n, sizeof *p->costs);
  if (!p->nodes || !p->stages || !p->members || !p->blocks || !p->in_place || !p->rounders ||
      !p->dx_rounders || !p->params || !p->theta.arrays || !p->dtheta.arrays || !p->costs)
    return mptl_fail(MPTL_ENOMEM, "program: no memory");
  for (int i = 0; i < p->graph->n_params; i++) {
    const mptl_param *param = &p->graph->params[i];
    p->memory.parameters +=
        param->numel * sizeof(float) * (p->options.train && !param->buffer ? trained_arrays(p) : 1);
    if (mptl_is_kept(p, param)) p->kept_bytes += mptl_theta_bytes(param);
  }
  p->memory.images = mptl_value_numel(p, 0) * sizeof(float);
  MPTL_TRY(find_stages(p));
  p->memory.record = mptl_aligned(mptl_record_bytes(p)) + mptl_target_bytes(p);
  MPTL_TRY(create_operators(p));
  p->memory.state += p->kept_bytes;
  return mptl_program_follow_assignment(p);
}

void mptl_program_release(mptl_program *p) {
  for (int i = 0; p->nodes != NULL && i < p->graph->n_ops; i++)
    if (p->nodes[i].is.op != NULL) p->backend->op_destroy(p->device, &p->nodes[i].is);
  free(p->nodes);
  free(p->stages);
  free(p->members);
  free(p->blocks);
  free(p->in_place);
  free(p->rounders);
  free(p->dx_rounders);
  free(p->params);
  free(p->theta.arrays);
  free(p->dtheta.arrays);
  free(p->costs);
}
