/* Compiling a graph for a batch and running its steps. See mptl/program.h.
 *
 * Outputs and gradients of outputs get a place in one arena by their lifetimes (program/lifetimes.h).
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "core/memory.h"
#include "graph/ops.h"
#include "mptl/program.h"
#include "program/lifetimes.h"
#include "program/model.h"
#include "program/workspace.h"

typedef struct op_slot {
  mptl_call call;
  mptl_lifetime life;            /* with the places of its output and its gradient in the arena */
  float *theta[MPTL_MAX_PARAMS]; /* rounded copies, allocated when first needed */
} op_slot;

struct mptl_program {
  const mptl_graph *graph;
  mptl_model *model;
  const mptl_assignment *assignment;
  const mptl_backend *backend;
  mptl_program_options options;
  int threads, loss; /* threads it was compiled for; operator index of the loss */
  op_slot *slots;
  mptl_rounder (*rounders)[MPTL_ROLES];
  mptl_op_stats *stats;
  mptl_op_times *times;
  mptl_workspace *workspace;
  bool owns_workspace;
  char *arena;            /* the workspace's, as it was when the operands were set */
  float *saved, *staging; /* staging: a batch that is not full, padded with zeros */
  int32_t *labels;        /* of the last forward, batch of them */
  void *scratch;
  uint32_t step;
  bool forward_done;
  mptl_memory_plan memory;
};

static size_t value_numel(const mptl_program *p, int op) {
  return mptl_shape_numel(p->graph->values[p->graph->ops[op].out].shape) * (size_t)p->options.batch;
}
static float *value_data(const mptl_program *p, int op) { return (float *)(p->arena + p->slots[op].life.value.offset); }
static float *gradient_data(const mptl_program *p, int op) { return (float *)(p->arena + p->slots[op].life.gradient.offset); }

/* ---- Compiling ---- */

/* Finds the lifetimes and gives every output and gradient its place. */
static mptl_status place(mptl_program *p) {
  int n = p->graph->n_ops, end = 2 * n;
  mptl_lifetime *lives = calloc((size_t)n, sizeof *lives);
  mptl_block *blocks = calloc(2 * (size_t)n, sizeof *blocks);
  mptl_status status = MPTL_ENOMEM;
  if (lives == NULL || blocks == NULL)
    mptl_fail(MPTL_ENOMEM, "program: no memory");
  else
    status = mptl_find_lifetimes(lives, p->graph, p->options.train, p->options.input_gradient);
  for (int i = 0; status == MPTL_OK && i < n; i++) {
    mptl_lifetime *t = &lives[i];
    t->value.bytes = value_numel(p, i) * sizeof(float);
    t->gradient.bytes = t->wants_gradient ? t->value.bytes : 0;
    if (t->value.last >= n) p->memory.saved += t->value.bytes;
    if (p->options.keep_all) t->value.first = t->gradient.first = 0, t->value.last = t->gradient.last = end;
    blocks[2 * i] = t->value;
    blocks[2 * i + 1] = t->gradient;
  }
  if (status == MPTL_OK) status = mptl_place_blocks(blocks, 2 * n, &p->memory.arena);
  for (int i = 0; status == MPTL_OK && i < n; i++) {
    p->slots[i].life = lives[i];
    p->slots[i].life.value = blocks[2 * i];
    p->slots[i].life.gradient = blocks[2 * i + 1];
  }
  free(lives);
  free(blocks);
  return status;
}

static mptl_status create_operators(mptl_program *p) {
  size_t saved = 0;
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    const mptl_op *op = &p->graph->ops[i];
    c->graph = p->graph;
    c->op = op;
    c->batch = p->options.batch;
    c->train = p->options.train;
    c->f32_only = p->options.compute_f32;
    if (op->n_param > MPTL_MAX_PARAMS)
      return mptl_fail(MPTL_EUNSUPPORTED, "%s: %d parameters, at most %d", op->name, op->n_param, MPTL_MAX_PARAMS);
    for (int k = 0; k < op->n_in; k++) c->dx[k].accumulate = p->slots[i].life.accumulate[k];
    bool dx_wanted = op->n_in > 0 && p->slots[mptl_producer(p->graph, op, 0)].life.wants_gradient;
    mptl_status status = p->backend->op_create(c, dx_wanted);
    if (status != MPTL_OK) return mptl_fail_in(status, "%s (%s)", op->name, op->kind->name);
    saved += (p->backend->op_saved_floats(c) + 15) / 16 * 16;
    size_t scratch = p->backend->op_scratch_bytes(c);
    if (scratch > p->memory.scratch) p->memory.scratch = scratch;
  }
  p->saved = mptl_memory_alloc(saved * sizeof(float));
  p->memory.saved += saved * sizeof(float);
  float *at = p->saved;
  for (int i = 0; p->saved != NULL && i < p->graph->n_ops; i++) {
    p->slots[i].call.saved = at;
    at += (p->backend->op_saved_floats(&p->slots[i].call) + 15) / 16 * 16;
  }
  if (p->saved == NULL) return mptl_fail(MPTL_ENOMEM, "program: no memory for %zu bytes", saved * sizeof(float));
  return MPTL_OK;
}

static void set_operands(mptl_program *p) {
  const mptl_graph *g = p->graph;
  for (int i = 0; i < g->n_ops; i++) {
    op_slot *s = &p->slots[i];
    mptl_call *c = &s->call;
    c->scratch = p->scratch;
    c->out = (mptl_source){.data = value_data(p, i), .rounder = &p->rounders[i][MPTL_V]};
    c->y = (mptl_sink){.data = value_data(p, i), .rounder = &p->rounders[i][MPTL_V], .stats = &p->stats[i][MPTL_V]};
    c->dy.data = s->life.wants_gradient ? gradient_data(p, i) : NULL;
    c->dy.rounder = s->life.readers > 1 ? NULL : &p->rounders[i][MPTL_DV];
    c->theta_rounder = &p->rounders[i][MPTL_THETA];
    c->labels = p->labels;
    for (int k = 0; k < c->op->n_in; k++) {
      int from = mptl_producer(g, c->op, k);
      c->in[k] = (mptl_source){.data = value_data(p, from), .rounder = &p->rounders[from][MPTL_V]};
      if (!p->slots[from].life.wants_gradient) continue;
      c->dx[k].data = gradient_data(p, from);
      c->dx[k].rounder = &p->rounders[from][MPTL_DV];
      c->dx[k].stats = &p->stats[from][MPTL_DV];
      c->dx[k].index0 = (uint64_t)(i * MPTL_MAX_INPUTS + k) << 32; /* contributions have random bits of their own */
    }
    for (int k = 0; k < c->op->n_param; k++) {
      int index = c->op->first_param + k;
      float *master = p->model->params[index]->data;
      c->theta[k] = master;
      if (g->params[index].buffer) c->buffers[k] = master;
      if (p->options.train && !g->params[index].buffer) c->dtheta[k] = p->model->grads[index]->data;
    }
  }
}

/* Makes the workspace this program's. */
static mptl_status acquire(mptl_program *p) {
  mptl_workspace *w = p->workspace;
  mptl_status status = mptl_workspace_reserve(w, p->memory.arena, p->memory.scratch);
  if (status != MPTL_OK) return mptl_fail_in(status, "batch %d", p->options.batch);
  if (p->arena != w->arena || p->scratch != w->scratch) {
    p->arena = w->arena;
    p->scratch = w->scratch;
    set_operands(p);
  }
  w->user = p;
  return MPTL_OK;
}

static mptl_status check_owner(const mptl_program *p, const char *what) {
  if (p->workspace->user == p) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "%s: another program has used the shared workspace since this one's forward", what);
}

mptl_status mptl_program_create(mptl_program **program, mptl_model *model, const mptl_assignment *assignment,
                                const mptl_program_options *options) {
  if (options->batch < 1) return mptl_fail(MPTL_EINVAL, "batch: %d, must be at least 1", options->batch);
  if (assignment->graph != model->graph)
    return mptl_fail(MPTL_EINVAL, "program: the model and the assignment are of different graphs");
  mptl_program *p = calloc(1, sizeof *p);
  if (p == NULL) return mptl_fail(MPTL_ENOMEM, "program: no memory");
  size_t n = (size_t)model->graph->n_ops;
  p->graph = model->graph;
  p->model = model;
  p->assignment = assignment;
  p->backend = &mptl_backend_cpu;
  p->options = *options;
  p->threads = p->backend->threads();
  p->loss = p->graph->n_ops - 1;
  p->slots = calloc(n, sizeof *p->slots);
  p->rounders = calloc(n, sizeof *p->rounders);
  p->stats = calloc(n, sizeof *p->stats);
  p->times = calloc(n, sizeof *p->times);
  p->labels = calloc((size_t)options->batch, sizeof *p->labels);
  mptl_status status =
      p->slots && p->rounders && p->stats && p->times && p->labels ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "program: no memory");
  if (status == MPTL_OK && options->train) status = mptl_model_prepare_training(model);
  if (status == MPTL_OK) status = place(p);
  if (status == MPTL_OK) status = create_operators(p);
  p->workspace = options->workspace;
  if (status == MPTL_OK && p->workspace == NULL) {
    status = mptl_workspace_create(&p->workspace);
    p->owns_workspace = true;
  }
  if (status == MPTL_OK) status = acquire(p);
  if (status != MPTL_OK) {
    mptl_program_destroy(p);
    return status;
  }
  for (int i = 0; i < p->graph->n_params; i++)
    p->memory.parameters += p->graph->params[i].numel * sizeof(float) * (options->train && !p->graph->params[i].buffer ? 3 : 1);
  *program = p;
  return MPTL_OK;
}

void mptl_program_destroy(mptl_program *p) {
  if (p == NULL) return;
  for (int i = 0; p->slots != NULL && i < p->graph->n_ops; i++) {
    if (p->slots[i].call.op != NULL) p->backend->op_destroy(&p->slots[i].call);
    for (int k = 0; k < MPTL_MAX_PARAMS; k++) mptl_memory_free(p->slots[i].theta[k]);
  }
  mptl_memory_free(p->saved);
  mptl_memory_free(p->staging);
  if (p->workspace != NULL && p->workspace->user == p) p->workspace->user = NULL;
  if (p->owns_workspace) mptl_workspace_destroy(p->workspace);
  free(p->labels);
  free(p->slots);
  free(p->rounders);
  free(p->stats);
  free(p->times);
  free(p);
}

/* ---- Running ---- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mptl_key key_of(const mptl_program *p, int op, mptl_role role) {
  return mptl_make_key(p->options.seed, MPTL_STREAM_ROUND, (uint32_t)(op * MPTL_ROLES + (int)role), p->step);
}

/* Reads the assignment as it is now. Forward tensors saturate, gradients overflow to infinity (method.md 3); what is in binary32 is left
 * as it was computed, infinities included. */
static mptl_status set_rounders(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    for (int role = 0; role < MPTL_ROLES; role++) {
      mptl_format format = p->assignment->tensors[i][role].format;
      bool forward = role == MPTL_V || role == MPTL_THETA, binary32 = format.e == 8 && format.m == 23 && format.b == 0;
      mptl_overflow overflow = forward && !binary32 ? MPTL_SATURATE : MPTL_INF;
      mptl_status status = mptl_rounder_init(&p->rounders[i][role], format, p->options.rounding, overflow);
      if (status != MPTL_OK) return mptl_fail_in(status, "%s of %s", mptl_role_name((size_t)role), p->graph->ops[i].name);
    }
    mptl_call *c = &p->slots[i].call;
    c->y.key = key_of(p, i, MPTL_V);
    for (int k = 0; k < c->op->n_in; k++) c->dx[k].key = key_of(p, mptl_producer(p->graph, c->op, k), MPTL_DV);
  }
  return MPTL_OK;
}

/* Rounds an operator's parameters from the masters; where the format is binary32 the master itself computes. */
static mptl_status round_theta(mptl_program *p, int op) {
  op_slot *s = &p->slots[op];
  const mptl_rounder *rounder = &p->rounders[op][MPTL_THETA];
  for (int k = 0; k < s->call.op->n_param; k++) {
    const mptl_param *param = &p->graph->params[s->call.op->first_param + k];
    const float *master = p->model->params[s->call.op->first_param + k]->data;
    if (param->buffer || rounder->is_identity) {
      s->call.theta[k] = master;
      continue;
    }
    if (s->theta[k] == NULL) {
      s->theta[k] = mptl_memory_alloc(param->numel * sizeof(float));
      if (s->theta[k] == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory for its rounded copy", param->name);
      p->memory.rounded += param->numel * sizeof(float);
    }
    p->backend->round(s->theta[k], master, param->numel, rounder, key_of(p, op, MPTL_THETA), (uint64_t)k << 32,
                      &p->stats[op][MPTL_THETA]);
    s->call.theta[k] = s->theta[k];
  }
  return MPTL_OK;
}

static mptl_status set_batch(mptl_program *p, const float *images, const int32_t *labels, int n) {
  int batch = p->options.batch;
  if (n < 1 || n > batch || (p->options.train && n != batch))
    return mptl_fail(MPTL_EINVAL, "batch of %d samples, the program takes %s%d", n, p->options.train ? "" : "1 to ", batch);
  memcpy(p->labels, labels, (size_t)n * sizeof *labels);
  p->slots[0].call.in[0].data = images;
  if (n == batch) return MPTL_OK;
  size_t image = value_numel(p, 0) / (size_t)batch;
  if (p->staging == NULL) p->staging = mptl_memory_alloc(value_numel(p, 0) * sizeof(float));
  if (p->staging == NULL) return mptl_fail(MPTL_ENOMEM, "program: no memory for a batch of images");
  memcpy(p->staging, images, (size_t)n * image * sizeof(float));
  memset(p->staging + (size_t)n * image, 0, (size_t)(batch - n) * image * sizeof(float));
  p->slots[0].call.in[0].data = p->staging;
  return MPTL_OK;
}

static mptl_status in_operator(mptl_status status, const mptl_op *op) {
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "%s (%s)", op->name, op->kind->name);
}

mptl_status mptl_program_forward(mptl_program *p, const float *images, const int32_t *labels, int n, uint32_t step,
                                 mptl_result *result) {
  MPTL_TRY(acquire(p));
  MPTL_TRY(set_batch(p, images, labels, n));
  p->backend->use_threads(p->threads);
  p->step = step;
  p->forward_done = false;
  memset(p->stats, 0, (size_t)p->graph->n_ops * sizeof *p->stats);
  MPTL_TRY(set_rounders(p));
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    double start = now();
    c->n_valid = n;
    MPTL_TRY(in_operator(round_theta(p, i), c->op));
    MPTL_TRY(in_operator(p->backend->forward(c), c->op));
    p->times[i] = (mptl_op_times){.forward = now() - start};
  }
  const mptl_call *loss = &p->slots[p->loss].call;
  *result = (mptl_result){.loss = loss->loss_sum, .correct = loss->correct, .count = n};
  p->forward_done = true;
  return MPTL_OK;
}

/* Rounds an operator's parameter gradients in place. */
static void round_dtheta(mptl_program *p, int op) {
  mptl_call *c = &p->slots[op].call;
  for (int k = 0; k < c->op->n_param; k++) {
    if (c->dtheta[k] == NULL) continue;
    p->backend->round(c->dtheta[k], c->dtheta[k], p->graph->params[c->op->first_param + k].numel, &p->rounders[op][MPTL_DTHETA],
                      key_of(p, op, MPTL_DTHETA), (uint64_t)k << 32, &p->stats[op][MPTL_DTHETA]);
  }
}

/* A step counts as not finite when any backward tensor overflowed or holds inf or NaN: so that storage without a code for infinity
 * takes the same decision. Rounding to binary32 does not look at the values, its parameter gradients are looked at here. */
static bool gradients_finite(const mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    const mptl_call *c = &p->slots[i].call;
    const mptl_round_stats *dv = &p->stats[i][MPTL_DV], *dtheta = &p->stats[i][MPTL_DTHETA];
    if (dv->overflow + dv->inf_in + dv->nan_in + dtheta->overflow + dtheta->inf_in + dtheta->nan_in > 0) return false;
    if (!p->rounders[i][MPTL_DTHETA].is_identity) continue;
    for (int k = 0; k < c->op->n_param; k++)
      if (c->dtheta[k] != NULL && !p->backend->all_finite(c->dtheta[k], p->graph->params[c->op->first_param + k].numel))
        return false;
  }
  return true;
}

mptl_status mptl_program_backward(mptl_program *p, double loss_scale, bool *finite) {
  if (!p->options.train) return mptl_fail(MPTL_EINVAL, "backward: the program was compiled for evaluation");
  if (!p->forward_done) return mptl_fail(MPTL_EINVAL, "backward: run forward first");
  MPTL_TRY(check_owner(p, "backward"));
  p->backend->use_threads(p->threads);
  /* The gradient of the samples' losses is rounded as any gradient of an output. */
  float *seed = gradient_data(p, p->loss);
  for (int i = 0; i < p->options.batch; i++) seed[i] = (float)(loss_scale / p->options.batch);
  p->backend->round(seed, seed, (size_t)p->options.batch, &p->rounders[p->loss][MPTL_DV], key_of(p, p->loss, MPTL_DV), 0,
                    &p->stats[p->loss][MPTL_DV]);
  for (int i = p->loss; i > 0; i--) {
    mptl_call *c = &p->slots[i].call;
    double start = now();
    if (p->slots[i].life.live) {
      MPTL_TRY(in_operator(p->backend->backward(c), c->op));
      round_dtheta(p, i);
    } else {
      for (int k = 0; k < c->op->n_param; k++)
        if (c->dtheta[k]) memset(c->dtheta[k], 0, p->graph->params[c->op->first_param + k].numel * sizeof(float));
    }
    p->times[i].backward = now() - start;
  }
  p->forward_done = false;
  *finite = gradients_finite(p);
  return MPTL_OK;
}

mptl_status mptl_program_step(mptl_program *p, const float *images, const int32_t *labels, int n, uint32_t step,
                              const mptl_update *update, mptl_result *result) {
  bool finite;
  MPTL_TRY(mptl_program_forward(p, images, labels, n, step, result));
  MPTL_TRY(mptl_program_backward(p, update->loss_scale, &finite));
  result->applied = finite || !update->skip_nonfinite;
  return result->applied ? mptl_model_update(p->model, update) : MPTL_OK;
}

/* ---- Looking inside ---- */

const mptl_op_times *mptl_program_times(const mptl_program *p) { return p->times; }

const char *mptl_compute_name(mptl_format a, mptl_format b) { return mptl_backend_cpu.compute(a, b); }

const mptl_op_stats *mptl_program_stats(const mptl_program *p) { return (const mptl_op_stats *)p->stats; }
mptl_memory_plan mptl_program_memory(const mptl_program *p) {
  mptl_memory_plan m = p->memory;
  for (int i = 0; i < p->graph->n_ops; i++) m.rounded += p->backend->op_packed_bytes(&p->slots[i].call);
  m.total = m.parameters + m.rounded + m.arena + m.scratch;
  return m;
}

mptl_status mptl_program_read(mptl_program *p, int op, bool gradient, float *out) {
  if (op < 0 || op >= p->graph->n_ops)
    return mptl_fail(MPTL_EINVAL, "operator %d: the graph has operators 0 to %d", op, p->graph->n_ops - 1);
  const mptl_block *block = gradient ? &p->slots[op].life.gradient : &p->slots[op].life.value;
  bool kept = p->options.keep_all || (gradient && op == 0) || (!gradient && op >= p->loss - 1);
  if (block->bytes == 0) return mptl_fail(MPTL_EINVAL, "%s: the program does not compute this gradient", p->graph->ops[op].name);
  if (!kept)
    return mptl_fail(MPTL_EINVAL, "%s: its memory is shared with others, compile the program with keep_all",
                     p->graph->ops[op].name);
  MPTL_TRY(check_owner(p, p->graph->ops[op].name));
  memcpy(out, gradient ? gradient_data(p, op) : value_data(p, op), block->bytes);
  return MPTL_OK;
}
