/* Compiling a graph for a batch and an assignment: stages, operands, places in one arena. */
#include <stdlib.h>
#include <string.h>

#include "graph/ops.h"
#include "program/inside.h"

/* ---- Once ---- */

/* Lists the stages by their last operator, and in each the operators in graph order, which then know their producers in it. */
static void list_stages(mptl_program *p) {
  const mptl_graph *g = p->graph;
  mptl_call **order = p->order;
  for (int last = 0; last < g->n_ops; last++) {
    if (p->slots[last].life.stage != last) continue;
    mptl_program_stage *s = &p->stages[p->n_stages++];
    *s = (mptl_program_stage){.last = last, .run = {.calls = order}};
    for (int i = 0; i <= last; i++)
      if (p->slots[i].life.stage == last) order[s->run.n++] = &p->slots[i].call;
    order += s->run.n;
    for (int i = 0; i < s->run.n; i++) {
      mptl_call *c = s->run.calls[i];
      for (int k = 0; k < c->op->n_in; k++) {
        c->from[k] = -1;
        for (int j = 0; j < i; j++)
          if (s->run.calls[j] == &p->slots[mptl_producer(g, c->op, k)].call) c->from[k] = j;
      }
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
    p->slots[i].life = lives[i];
    p->slots[i].call.op = &p->graph->ops[i];
  }
  free(lives);
  if (status == MPTL_OK) list_stages(p);
  return status;
}

static mptl_status create_operators(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    const mptl_op *op = c->op;
    c->device = p->device;
    c->graph = p->graph;
    c->batch = p->options.batch;
    c->train = p->options.train;
    c->compute = p->options.compute;
    if (op->n_param > MPTL_MAX_PARAMS)
      return mptl_fail(MPTL_EUNSUPPORTED, "%s: %d parameters, at most %d", op->name, op->n_param, MPTL_MAX_PARAMS);
    if (c->train && c->batch < mptl_graph_least_batch(p->graph, i))
      return mptl_fail(MPTL_EINVAL, "%s (%s): batch %d: it normalises one value per channel, accepted are batches of at least %d",
                       op->name, op->kind->name, c->batch, mptl_graph_least_batch(p->graph, i));
    MPTL_TRY(mptl_in_operator(p->backend->op_create(p->device, c), op));
    p->memory.state += mptl_aligned(p->backend->op_saved_floats(p->device, c) * sizeof(float));
  }
  return MPTL_OK;
}

mptl_status mptl_program_compile(mptl_program *p) {
  size_t n = (size_t)p->graph->n_ops;
  p->backend = p->device->backend;
  p->loss = p->graph->n_ops - 1;
  p->slots = calloc(n, sizeof *p->slots);
  p->stages = calloc(n, sizeof *p->stages);
  p->order = calloc(n, sizeof(mptl_call *));
  p->blocks = calloc(2 * n, sizeof *p->blocks);
  p->in_place = calloc(2 * n, sizeof *p->in_place);
  p->rounders = calloc(n, sizeof *p->rounders);
  p->dx_rounders = calloc(n, sizeof *p->dx_rounders);
  p->param_rounders = calloc((size_t)p->graph->n_params + 1, sizeof *p->param_rounders);
  p->theta.arrays = calloc((size_t)p->graph->n_params + 1, sizeof *p->theta.arrays);
  p->dtheta.arrays = calloc((size_t)p->graph->n_params + 1, sizeof *p->dtheta.arrays);
  p->costs = calloc(n, sizeof *p->costs);
  if (!p->slots || !p->stages || !p->order || !p->blocks || !p->in_place || !p->rounders || !p->dx_rounders ||
      !p->param_rounders || !p->theta.arrays || !p->dtheta.arrays || !p->costs)
    return mptl_fail(MPTL_ENOMEM, "program: no memory");
  for (int i = 0; i < p->graph->n_params; i++) {
    const mptl_param *param = &p->graph->params[i];
    p->memory.parameters += param->numel * sizeof(float) * (p->options.train && !param->buffer ? 3 : 1);
    if (mptl_is_kept(p, param)) p->kept_bytes += mptl_theta_bytes(param);
  }
  p->memory.record = mptl_aligned(mptl_record_bytes(p)) + (size_t)p->options.batch * sizeof *p->labels;
  p->memory.images = mptl_value_numel(p, 0) * sizeof(float);
  MPTL_TRY(find_stages(p));
  MPTL_TRY(create_operators(p));
  p->memory.state += p->kept_bytes;
  return mptl_program_follow_assignment(p);
}

void mptl_program_release(mptl_program *p) {
  for (int i = 0; p->slots != NULL && i < p->graph->n_ops; i++)
    if (p->slots[i].call.op != NULL) p->backend->op_destroy(p->device, &p->slots[i].call);
  free(p->slots);
  free(p->stages);
  free(p->order);
  free(p->blocks);
  free(p->in_place);
  free(p->rounders);
  free(p->dx_rounders);
  free(p->param_rounders);
  free(p->theta.arrays);
  free(p->dtheta.arrays);
  free(p->costs);
}

/* ---- For an assignment ---- */

/* Forward tensors saturate, gradients overflow to infinity (method.md 3); what is in binary32 is left as it was computed, infinities
 * included. */
static void set_rounders(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    for (int role = 0; role < MPTL_ROLES; role++) {
      mptl_format format = p->assignment->tensors[i][role].format;
      bool forward = role == MPTL_V || role == MPTL_THETA;
      bool binary32 = format.e == 8 && format.m == 23 && format.b == 0 && !format.auto_bias;
      mptl_overflow overflow = forward && !binary32 ? MPTL_SATURATE : MPTL_INF;
      mptl_rounder_init(&p->rounders[i][role], format, p->options.rounding, overflow);
    }
  }
}

/* Whether an operator's output has a gradient of several that are not on one grid: their sum, which is not rounded again, or parts, where
 * each has a bias shift of its own. */
static bool sums_gradients(const mptl_program *p, int op) {
  const mptl_lifetime *life = &p->slots[op].life;
  return life->readers > 1 && (!life->in_parts || p->rounders[op][MPTL_DV].format.auto_bias);
}

/* Bytes that an element of an operator's output, or of its gradient, takes in memory; 0 when it is not there. Gradients that are not on
 * one grid are in binary32. */
static size_t element_bytes(const mptl_program *p, int op, mptl_role role) {
  const mptl_lifetime *t = &p->slots[op].life;
  if (t->stage != op || (role == MPTL_DV && !t->wants_gradient)) return 0;
  if (p->options.storage == MPTL_EMULATED || (role == MPTL_DV && sums_gradients(p, op))) return sizeof(float);
  return mptl_code_size(p->rounders[op][role].format);
}

/* Puts block `to` where block `from` is, if that is read last when `to` is written first and both are as large: *from then stands for
 * both. in_place[i] is the block that block i is part of, or -1. */
static void join(mptl_program *p, int from, int to, int time) {
  while (p->in_place[from] >= 0) from = p->in_place[from];
  mptl_block *a = &p->blocks[from], *b = &p->blocks[to];
  if (a->bytes == 0 || a->bytes != b->bytes || a->last != time || b->first != time || p->in_place[to] >= 0) return;
  p->in_place[to] = from;
  a->last = b->last;
  b->bytes = 0;
}

/* Pointwise stages read each tile before they write it: an output goes where an input was, a gradient of an input where that of the
 * output was, when nothing else needs it. */
static void join_in_place(mptl_program *p) {
  int n = p->graph->n_ops;
  for (int i = 0; i < 2 * n; i++) p->in_place[i] = -1;
  for (int direction = 0; direction < 2; direction++) {
    for (int s = 0; s < p->n_stages; s++) {
      const mptl_program_stage *stage = &p->stages[direction == 0 ? s : p->n_stages - 1 - s];
      if (!p->graph->ops[stage->last].kind->pointwise) continue;
      for (int j = 0; j < stage->run.n; j++) {
        const mptl_call *c = stage->run.calls[j];
        for (int k = 0; k < c->op->n_in; k++) {
          int from = mptl_producer(p->graph, c->op, k), op = (int)(c->op - p->graph->ops);
          if (c->from[k] >= 0) continue;
          if (direction == 0)
            join(p, 2 * from, 2 * stage->last, stage->last);
          else if (p->slots[from].life.wants_gradient && !p->slots[op].life.accumulate[k])
            join(p, 2 * stage->last + 1, 2 * from + 1, mptl_backward_time(p->graph, stage->last));
        }
      }
    }
  }
}

/* Gives every stored output and gradient its place. */
static mptl_status place(mptl_program *p) {
  int n = p->graph->n_ops;
  p->memory.saved = p->memory.state;
  for (int i = 0; i < n; i++) {
    mptl_lifetime *t = &p->slots[i].life;
    t->value.bytes = mptl_value_numel(p, i) * element_bytes(p, i, MPTL_V);
    t->gradient.bytes = mptl_value_numel(p, i) * element_bytes(p, i, MPTL_DV);
    if (t->value.last >= n && !p->options.keep_all) p->memory.saved += t->value.bytes;
    p->blocks[2 * i] = t->value;
    p->blocks[2 * i + 1] = t->gradient;
  }
  join_in_place(p);
  MPTL_TRY(mptl_place_blocks(p->blocks, 2 * n, &p->memory.arena));
  for (int i = 0; i < 2 * n; i++) {
    int at = i;
    while (p->in_place[at] >= 0) at = p->in_place[at];
    mptl_lifetime *t = &p->slots[i / 2].life;
    *(i % 2 == 0 ? &t->value.offset : &t->gradient.offset) = p->blocks[at].offset;
  }
  return MPTL_OK;
}

/* The rounder of one of a tensor's roundings: the tensor's or, where there are several and each has a bias shift of its own, that one's,
 * which begins as the tensor's. */
static mptl_rounder *rounder_of(mptl_rounder *tensor, mptl_rounder *own, bool several) {
  if (!several || !tensor->format.auto_bias) return tensor;
  *own = *tensor;
  return own;
}

/* Everything about the operands but their addresses. */
static void describe_operands(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    size_t size = element_bytes(p, i, MPTL_V);
    c->out = (mptl_source){.size = size, .rounder = &p->rounders[i][MPTL_V]};
    c->y = (mptl_sink){.size = size, .wanted = true, .rounder = &p->rounders[i][MPTL_V]};
    c->dy = (mptl_source){.size = element_bytes(p, i, MPTL_DV)};
    c->dy.rounder = sums_gradients(p, i) ? NULL : &p->rounders[i][MPTL_DV];
    for (int k = 0; k < c->op->n_param; k++) {
      mptl_param_rounders *r = &p->param_rounders[c->op->first_param + k];
      r->theta = rounder_of(&p->rounders[i][MPTL_THETA], &r->own[0], true);
      r->dtheta = rounder_of(&p->rounders[i][MPTL_DTHETA], &r->own[1], true);
    }
    c->theta_rounder = c->op->n_param > 0 ? p->param_rounders[c->op->first_param].theta : &p->rounders[i][MPTL_THETA];
    if (c->op->n_in == 0) c->in[0] = (mptl_source){.size = sizeof(float)}; /* the batch of images */
    for (int k = 0; k < c->op->n_in; k++) {
      int from = mptl_producer(p->graph, c->op, k);
      c->in[k] = (mptl_source){.size = element_bytes(p, from, MPTL_V), .rounder = &p->rounders[from][MPTL_V]};
      c->dx[k] = (mptl_sink){.accumulate = p->slots[i].life.accumulate[k], .part = p->slots[from].life.in_parts};
      if (!p->slots[from].life.wants_gradient) continue;
      c->dx[k].size = element_bytes(p, from, MPTL_DV);
      c->dx[k].rounder = rounder_of(&p->rounders[from][MPTL_DV], &p->dx_rounders[i][k], sums_gradients(p, from));
      c->dx[k].wanted = true;
      c->dx[k].index0 = (uint64_t)(i * MPTL_MAX_INPUTS + k) << 32; /* contributions have random bits of their own */
    }
  }
}

/* Prepares the stages. Scratch memory: as much as the one that needs most. */
static mptl_status prepare_stages(mptl_program *p) {
  p->memory.scratch = 0;
  if (p->backend->expect != NULL) p->backend->expect(p->device, p->order, p->graph->n_ops);
  for (int i = 0; i < p->n_stages; i++) {
    mptl_program_stage *s = &p->stages[i];
    s->theta_bytes = 0;
    for (int j = 0; j < s->run.n; j++) {
      const mptl_call *c = s->run.calls[j];
      for (int k = 0; k < c->op->n_param && !c->theta_rounder->is_identity; k++) {
        const mptl_param *param = &p->graph->params[c->op->first_param + k];
        if (!mptl_is_kept(p, param) && !mptl_is_weights(p, param)) s->theta_bytes += mptl_theta_bytes(param);
      }
    }
    MPTL_TRY(p->backend->prepare(p->device, &s->run, &s->scratch_bytes));
    size_t bytes = mptl_images_offset(s) + (i == 0 && !p->backend->is_host ? p->memory.images : 0);
    if (bytes > p->memory.scratch) p->memory.scratch = bytes;
  }
  return MPTL_OK;
}

/* Bytes that each stage's formulas read and write, once. */
static void count_bytes(mptl_program *p) {
  for (int i = 0; i < p->n_stages; i++) {
    const mptl_program_stage *s = &p->stages[i];
    size_t forward = 0, backward = 0;
    for (int j = 0; j < s->run.n; j++) {
      const mptl_call *c = s->run.calls[j];
      size_t out = mptl_value_numel(p, (int)(c->op - p->graph->ops)), theta = 0;
      for (int k = 0; k < c->op->n_in; k++) {
        size_t in = mptl_value_numel(p, mptl_producer(p->graph, c->op, k));
        if (c->from[k] < 0) forward += (c->op->kind == &mptl_op_slice ? out : in) * c->in[k].size;
        if (c->op->kind->backward_reads_in) backward += in * c->in[k].size;
        if (c->dx[k].wanted) backward += (c->dx[k].part ? out : in) * c->dx[k].size * (c->dx[k].accumulate ? 2 : 1);
      }
      for (int k = 0; k < c->op->n_param; k++) theta += p->graph->params[c->op->first_param + k].numel * sizeof(float);
      forward += theta + out * c->y.size;
      backward += 2 * theta + out * c->dy.size + (c->op->kind->backward_reads_out ? out * c->out.size : 0);
    }
    p->costs[s->last].forward_bytes = forward;
    p->costs[s->last].backward_bytes = p->options.train && s->last > 0 ? backward : 0;
  }
}

static bool laid_out(const mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++)
    for (int role = 0; role < MPTL_ROLES; role++)
      if (p->rounders[i][role].code_sign == 0 ||
          !mptl_format_equal(p->rounders[i][role].format, p->assignment->tensors[i][role].format))
        return false;
  return true;
}

mptl_status mptl_program_follow_assignment(mptl_program *p) {
  if (laid_out(p)) return MPTL_OK;
  set_rounders(p);
  MPTL_TRY(place(p));
  describe_operands(p);
  MPTL_TRY(prepare_stages(p));
  count_bytes(p);
  p->arena = NULL; /* the operands have no addresses now */
  p->memory.total =
      p->memory.images + p->memory.parameters + p->memory.state + p->memory.record + p->memory.arena + p->memory.scratch;
  return MPTL_OK;
}

/* ---- For a workspace ---- */

static void connect_operands(mptl_program *p) {
  const mptl_graph *g = p->graph;
  char *saved = (char *)p->saved;
  for (int i = 0; i < p->n_stages; i++) p->stages[i].run.scratch = p->scratch + p->stages[i].theta_bytes;
  for (int i = 0; i < g->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    c->saved = (float *)saved;
    saved += mptl_aligned(p->backend->op_saved_floats(p->device, c) * sizeof(float));
    if (c->y.size > 0) c->y.data = mptl_value_data(p, i);
    c->y.stats = &p->record.stats[i][MPTL_V];
    c->out.data = c->y.data;
    c->labels = p->labels;
    c->loss = &p->record.facts->loss;
    if (c->dy.size > 0) c->dy.data = mptl_gradient_data(p, i);
    for (int k = 0; k < c->op->n_in; k++) {
      int from = mptl_producer(g, c->op, k);
      if (c->in[k].size > 0) c->in[k].data = mptl_value_data(p, from);
      if (c->dx[k].wanted) c->dx[k].stats = &p->record.stats[from][MPTL_DV];
      if (c->dx[k].size > 0) c->dx[k].data = mptl_gradient_data(p, from);
    }
    for (int k = 0; k < c->op->n_param; k++) {
      int index = c->op->first_param + k;
      c->theta[k] = p->model->params[index]->data;
      if (g->params[index].buffer) c->buffers[k] = p->model->params[index]->data;
      if (p->options.train && !g->params[index].buffer) c->dtheta[k] = p->model->grads[index]->data;
    }
  }
}

/* What a program has besides the workspace: once. */
static mptl_status allocate(mptl_program *p) {
  size_t bytes = mptl_record_bytes(p);
  if (p->saved == NULL) p->saved = p->backend->alloc(p->device, p->memory.state);
  if (p->record.facts == NULL) p->record.facts = p->backend->alloc(p->device, p->memory.record);
  if (p->fetched.facts == NULL && (p->fetched.facts = p->backend->host_alloc(p->device, bytes)) != NULL)
    memset(p->fetched.facts, 0, bytes);
  if (p->saved == NULL || p->record.facts == NULL || p->fetched.facts == NULL)
    return mptl_fail(MPTL_ENOMEM, "program: no memory for %zu bytes", p->memory.state + p->memory.record);
  p->record.stats = (mptl_op_stats *)(p->record.facts + 1);
  p->fetched.stats = (mptl_op_stats *)(p->fetched.facts + 1);
  p->labels = (int32_t *)((char *)p->record.facts + mptl_aligned(bytes));
  return MPTL_OK;
}

mptl_status mptl_program_acquire(mptl_program *p) {
  mptl_workspace *w = p->workspace;
  mptl_status status = mptl_workspace_reserve(w, p->memory.arena, p->memory.scratch);
  if (status != MPTL_OK) return mptl_fail_in(status, "batch %d", p->options.batch);
  MPTL_TRY(allocate(p));
  if (p->arena != w->arena || p->scratch != w->scratch) {
    p->arena = w->arena;
    p->scratch = w->scratch;
    connect_operands(p);
  }
  w->user = p;
  return MPTL_OK;
}
