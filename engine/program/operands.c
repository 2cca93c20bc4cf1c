/* Gives a program's operands formats, sizes and addresses.
 *
 * Formats and sizes depend on the assignment: mptl_program_follow_assignment sets them again when a
 * format has changed. Addresses depend on the workspace, which programs share and which may move
 * when it grows: mptl_program_acquire sets them again when it has moved. compile.c needs only the
 * first half, so a program without memory can predict how much it takes.
 */
#include <string.h>

#include "program/inside.h"

/* ---- Formats: a rounder for each tensor ----
 *
 * A tensor has one rounder. An exception is FP(e,m,auto), for tensors with several roundings: then
 * each rounding has its own bias shift and rounder. Such tensors are the parameters of an operator,
 * and a gradient to which several consumers contribute. */

/* Makes the rounders of all tensors from the assignment's formats. v and theta saturate, gradients
 * overflow to infinity (method.md 3.2). binary32 stays as computed, infinities included. */
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

/* Whether the gradient of an operator's output must be stored in binary32: it is an unrounded sum,
 * or its parts have different bias shifts. */
static bool sums_gradients(const mptl_program *p, int op) {
  const mptl_lifetime *life = &p->nodes[op].life;
  return life->readers > 1 && (!life->in_parts || p->rounders[op][MPTL_DV].format.auto_bias);
}

/* ---- Places in the arena ----
 *
 * Outputs and gradients share one arena: two of them may have the same addresses if their lifetimes
 * do not overlap. This section computes their sizes, reuses memory within pointwise stages, and
 * places the rest with arena.h. */

/* Bytes of one element of an operator's output, or of its gradient; 0 if it is not stored. */
static size_t element_bytes(const mptl_program *p, int op, mptl_role role) {
  const mptl_lifetime *t = &p->nodes[op].life;
  if (t->stage != op || (role == MPTL_DV && !t->wants_gradient)) return 0;
  if (p->options.storage == MPTL_EMULATED || (role == MPTL_DV && sums_gradients(p, op)))
    return sizeof(float);
  return mptl_code_size(p->rounders[op][role].format);
}

/* Makes block `to` use the memory of block `from`, if `from` is read for the last time at `time`,
 * `to` is written first at that time, and both have the same size. Block `from` then lives as long
 * as both. */
static void join(mptl_program *p, int from, int to, int time) {
  while (p->in_place[from] >= 0) from = p->in_place[from];
  mptl_block *a = &p->blocks[from], *b = &p->blocks[to];
  if (a->bytes == 0 || a->bytes != b->bytes || a->last != time || b->first != time ||
      p->in_place[to] >= 0)
    return;
  p->in_place[to] = from;
  a->last = b->last;
  b->bytes = 0;
}

/* Finds the blocks that pointwise stages compute in place, and sets in_place. Such a stage reads
 * each tile before it writes it. So, if nothing else needs the old values, its output may overwrite
 * one of its inputs (forward), and the gradient of an input may overwrite the gradient of the
 * output (backward). */
static void join_in_place(mptl_program *p) {
  int n = p->graph->n_ops;
  for (int i = 0; i < 2 * n; i++) p->in_place[i] = -1;
  for (int direction = 0; direction < 2; direction++) {
    for (int s = 0; s < p->n_stages; s++) {
      const mptl_program_stage *stage = &p->stages[direction == 0 ? s : p->n_stages - 1 - s];
      if (!p->graph->ops[stage->last].kind->pointwise) continue;
      for (int j = 0; j < stage->run.n; j++) {
        const mptl_operator *o = stage->run.members[j].is;
        for (int k = 0; k < o->op->n_in; k++) {
          int from = mptl_producer(p->graph, o->op, k), op = (int)(o->op - p->graph->ops);
          if (o->from[k] >= 0) continue;
          if (direction == 0)
            join(p, 2 * from, 2 * stage->last, stage->last);
          else if (p->nodes[from].life.wants_gradient && !p->nodes[op].life.accumulate[k])
            join(p, 2 * stage->last + 1, 2 * from + 1, mptl_backward_time(p->graph, stage->last));
        }
      }
    }
  }
}

/* Places every stored output and gradient in the arena. Sets the sizes arena and saved of the
 * memory plan. */
static mptl_status place(mptl_program *p) {
  int n = p->graph->n_ops;
  p->memory.saved = p->memory.state;
  for (int i = 0; i < n; i++) {
    mptl_lifetime *t = &p->nodes[i].life;
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
    mptl_lifetime *t = &p->nodes[i / 2].life;
    *(i % 2 == 0 ? &t->value.offset : &t->gradient.offset) = p->blocks[at].offset;
  }
  return MPTL_OK;
}

/* ---- Operands ----
 *
 * mptl_operands is what a backend gets of an operator: where its inputs, output, parameters and
 * gradients are, and how each is rounded. Everything except addresses is set here. */

/* The rounder of one of a tensor's roundings: `tensor`, or in FP(e,m,auto), if the tensor has
 * several roundings, a copy of it in *own. */
static mptl_rounder *rounder_of(mptl_rounder *tensor, mptl_rounder *own, bool several) {
  if (!several || !tensor->format.auto_bias) return tensor;
  *own = *tensor;
  return own;
}

/* Sets the rounders of an operator's parameter k and of its gradient. */
static void describe_parameter(mptl_program *p, int op, int k) {
  mptl_operands *on = &p->nodes[op].on;
  int index = p->graph->ops[op].first_param + k;
  const mptl_param *param = &p->graph->params[index];
  mptl_param_rounding *r = &p->params[index];
  r->theta = rounder_of(&p->rounders[op][MPTL_THETA], &r->own[0], true);
  r->dtheta = rounder_of(&p->rounders[op][MPTL_DTHETA], &r->own[1], true);
  if (!mptl_is_weights(p, param)) return;
  on->weights = (mptl_unrounded){.n = param->numel, .tensor = mptl_tensor_of(op, MPTL_THETA)};
  if (!r->theta->is_identity) on->weights.rounder = r->theta;
}

/* Where an operator sends the gradient of its input k, and how it rounds it: to the dv format of
 * the operator that produced the input. */
static mptl_destination describe_gradient(mptl_program *p, int op, int k) {
  int from = mptl_producer(p->graph, &p->graph->ops[op], k);
  mptl_destination dx = {.accumulate = p->nodes[op].life.accumulate[k],
                         .part = p->nodes[from].life.in_parts};
  if (!p->nodes[from].life.wants_gradient) return dx;
  dx.size = element_bytes(p, from, MPTL_DV);
  dx.rounder =
      rounder_of(&p->rounders[from][MPTL_DV], &p->dx_rounders[op][k], sums_gradients(p, from));
  dx.wanted = true;
  dx.tensor = mptl_tensor_of(from, MPTL_DV);
  dx.index0 = (uint64_t)(op * MPTL_MAX_INPUTS + k)
              << 32; /* each contribution has its own random bits */
  return dx;
}

/* Sets all operands, without addresses. */
static void describe_operands(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    const mptl_op *op = &p->graph->ops[i];
    mptl_operands *on = &p->nodes[i].on;
    size_t size = element_bytes(p, i, MPTL_V);
    *on = (mptl_operands){.out = {.size = size, .rounder = &p->rounders[i][MPTL_V]},
                          .y = {.size = size, .wanted = true, .rounder = &p->rounders[i][MPTL_V]},
                          .dy = {.size = element_bytes(p, i, MPTL_DV)},
                          .may_overwrite_dy = !p->options.keep_all};
    on->y.tensor = mptl_tensor_of(i, MPTL_V);
    on->dy.rounder = sums_gradients(p, i) ? NULL : &p->rounders[i][MPTL_DV];
    for (int k = 0; k < op->n_param; k++) describe_parameter(p, i, k);
    on->theta_rounder =
        op->n_param > 0 ? p->params[op->first_param].theta : &p->rounders[i][MPTL_THETA];
    if (op->n_in == 0) on->in[0] = (mptl_source){.size = sizeof(float)}; /* the batch of images */
    for (int k = 0; k < op->n_in; k++) {
      int from = mptl_producer(p->graph, op, k);
      on->in[k] = (mptl_source){.size = element_bytes(p, from, MPTL_V),
                                .rounder = &p->rounders[from][MPTL_V]};
      on->dx[k] = describe_gradient(p, i, k);
    }
  }
}

/* ---- Stages: scratch memory and costs ---- */

/* Whether the parameter has a rounded copy in its stage's scratch memory. */
static bool has_copy(const mptl_program *p, int index) {
  const mptl_param *param = &p->graph->params[index];
  return !p->params[index].theta->is_identity && !param->buffer && !mptl_is_kept(p, param) &&
         !mptl_is_weights(p, param);
}

/* Prepares the backend for every stage. The program's scratch memory is as large as the stage with
 * the largest needs. */
static mptl_status prepare_stages(mptl_program *p) {
  p->memory.scratch = 0;
  if (p->backend->expect != NULL) p->backend->expect(p->device, p->members, p->graph->n_ops);
  for (int i = 0; i < p->n_stages; i++) {
    mptl_program_stage *s = &p->stages[i];
    size_t theta_bytes = 0;
    for (int j = 0; j < s->run.n; j++) {
      const mptl_op *op = s->run.members[j].is->op;
      for (int k = 0; k < op->n_param; k++)
        if (has_copy(p, op->first_param + k))
          theta_bytes += mptl_theta_bytes(&p->graph->params[op->first_param + k]);
    }
    s->theta_bytes = theta_bytes;
    MPTL_TRY(p->backend->prepare(p->device, &s->run, &s->scratch_bytes));
    size_t bytes = mptl_images_offset(s) + (i == 0 && !p->backend->is_host ? p->memory.images : 0);
    if (bytes > p->memory.scratch) p->memory.scratch = bytes;
  }
  return MPTL_OK;
}

/* Adds the bytes that an operator has to read and write at least: each operand in memory once. */
static void add_bytes(const mptl_program *p, const mptl_member *m, size_t *forward,
                      size_t *backward) {
  const mptl_op *op = m->is->op;
  const mptl_op_kind *kind = op->kind;
  size_t out = mptl_value_numel(p, (int)(op - p->graph->ops)), theta = 0;
  for (int k = 0; k < op->n_in; k++) {
    size_t in = mptl_value_numel(p, mptl_producer(p->graph, op, k));
    const mptl_destination *dx = &m->on->dx[k];
    if (m->is->from[k] < 0) *forward += (kind->id == MPTL_OP_SLICE ? out : in) * m->on->in[k].size;
    if (kind->backward_reads_in) *backward += in * m->on->in[k].size;
    if (dx->wanted) *backward += (dx->part ? out : in) * dx->size * (dx->accumulate ? 2 : 1);
  }
  for (int k = 0; k < op->n_param; k++)
    theta += p->graph->params[op->first_param + k].numel * sizeof(float);
  *forward += theta + out * m->on->y.size;
  *backward +=
      2 * theta + out * m->on->dy.size + (kind->backward_reads_out ? out * m->on->out.size : 0);
}

/* Sets the bytes in the costs of all stages. */
static void count_bytes(mptl_program *p) {
  for (int i = 0; i < p->n_stages; i++) {
    const mptl_program_stage *s = &p->stages[i];
    size_t forward = 0, backward = 0;
    for (int j = 0; j < s->run.n; j++) add_bytes(p, &s->run.members[j], &forward, &backward);
    p->costs[s->last].forward_bytes = forward;
    p->costs[s->last].backward_bytes = p->options.train && s->last > 0 ? backward : 0;
  }
}

/* ---- Following the assignment ---- */

/* Whether all rounders have the assignment's formats. false in a new program. */
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
  p->arena = NULL; /* the operands have lost their addresses: acquire sets them */
  p->memory.total = p->memory.images + p->memory.parameters + p->memory.state + p->memory.record +
                    p->memory.arena + p->memory.scratch;
  return MPTL_OK;
}

/* ---- Addresses ----
 *
 * Outputs and gradients get addresses in the workspace's arena, rounded parameters mostly in its
 * scratch memory. What operators save for backward, and the record, are in memory of the program
 * itself, which is allocated once. */

/* Sets the addresses of an operator's parameters and their gradients. Rounded copies are in the
 * stage's scratch memory from *copies on or, if kept (mptl_is_kept), in the program's memory from
 * *kept on. Advances *copies and *kept. */
static void connect_parameters(mptl_program *p, mptl_node *node, char **copies, char **kept) {
  for (int k = 0; k < node->is.op->n_param; k++) {
    int index = node->is.op->first_param + k;
    const mptl_param *param = &p->graph->params[index];
    mptl_param_rounding *r = &p->params[index];
    float *master = p->model->params[index]->data;
    bool is_kept = mptl_is_kept(p, param);
    char **at = is_kept ? kept : copies;
    r->rounded = has_copy(p, index) || (is_kept && !r->theta->is_identity) ? (float *)*at : NULL;
    if (r->rounded != NULL || is_kept) *at += mptl_theta_bytes(param);
    node->on.theta[k] = r->rounded != NULL ? r->rounded : master;
    if (mptl_is_weights(p, param)) node->on.weights.master = master;
    if (param->buffer) node->on.buffers[k] = master;
    if (p->options.train && !param->buffer) node->on.dtheta[k] = p->model->grads[index]->data;
  }
}

/* Sets the addresses of an operator's inputs, output and their gradients. */
static void connect_values(mptl_program *p, int op) {
  mptl_operands *on = &p->nodes[op].on;
  const mptl_op *o = &p->graph->ops[op];
  if (on->y.size > 0) on->y.data = mptl_value_data(p, op);
  on->out.data = on->y.data;
  if (on->dy.size > 0) on->dy.data = mptl_gradient_data(p, op);
  for (int k = 0; k < o->n_in; k++) {
    int from = mptl_producer(p->graph, o, k);
    if (on->in[k].size > 0) on->in[k].data = mptl_value_data(p, from);
    if (on->dx[k].size > 0) on->dx[k].data = mptl_gradient_data(p, from);
  }
}

/* Sets the addresses of all operands and of the stages' scratch memory. */
static void connect_operands(mptl_program *p) {
  char *saved = (char *)p->saved, *kept = saved + p->memory.state - p->kept_bytes;
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_operands *on = &p->nodes[i].on;
    connect_values(p, i);
    on->saved = (float *)saved;
    saved += mptl_saved_bytes(p->graph, &p->graph->ops[i]);
    if (p->options.targets == MPTL_LABELS)
      on->targets.labels = p->targets;
    else
      on->targets.values = p->targets;
    on->loss = &p->record.facts->loss;
  }
  for (int i = 0; i < p->n_stages; i++) {
    mptl_program_stage *s = &p->stages[i];
    char *copies = p->scratch + mptl_aligned(s->scratch_bytes);
    s->run.scratch = p->scratch;
    for (int j = 0; j < s->run.n; j++)
      connect_parameters(p, &p->nodes[s->run.members[j].is->op - p->graph->ops], &copies, &kept);
  }
}

/* Allocates the program's own memory, unless it is there: what is saved for backward, the record,
 * and its copy on the host. */
static mptl_status allocate(mptl_program *p) {
  size_t bytes = mptl_record_bytes(p);
  if (p->saved == NULL) p->saved = p->backend->alloc(p->device, p->memory.state);
  if (p->record.facts == NULL) p->record.facts = p->backend->alloc(p->device, p->memory.record);
  if (p->fetched.facts == NULL &&
      (p->fetched.facts = p->backend->host_alloc(p->device, bytes)) != NULL)
    memset(p->fetched.facts, 0, bytes);
  if (p->saved == NULL || p->record.facts == NULL || p->fetched.facts == NULL)
    return mptl_fail(MPTL_ENOMEM, "program: no memory for %zu bytes",
                     p->memory.state + p->memory.record);
  p->record.stats = (mptl_op_stats *)(p->record.facts + 1);
  p->fetched.stats = (mptl_op_stats *)(p->fetched.facts + 1);
  p->targets = (char *)p->record.facts + mptl_aligned(bytes);
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
