/* Running a program: forward, backward, update. */
#include <math.h>

#include "core/clock.h"
#include "program/inside.h"

static mptl_key key_of(const mptl_program *p, int op, mptl_role role) {
  return mptl_make_key(p->options.seed, MPTL_STREAM_ROUND, (uint32_t)(op * MPTL_ROLES + (int)role), p->step);
}

static void set_keys(mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    c->key = mptl_make_key(p->options.seed, MPTL_STREAM_DROPOUT, (uint32_t)i, p->step);
    c->y.key = key_of(p, i, MPTL_V);
    for (int k = 0; k < c->op->n_in; k++) c->dx[k].key = key_of(p, mptl_producer(p->graph, c->op, k), MPTL_DV);
  }
}

/* Where the step counts the exponents of a tensor; NULL: not wanted. */
static mptl_exponents *exponents_of(const mptl_program *p, int op, mptl_role role) {
  return p->has_exponents ? &p->exponents[op][role] : NULL;
}

static mptl_status set_exponents(mptl_program *p) {
  p->has_exponents = p->want_exponents;
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    c->y.exponents = exponents_of(p, i, MPTL_V);
    for (int k = 0; k < c->op->n_in; k++) c->dx[k].exponents = exponents_of(p, mptl_producer(p->graph, c->op, k), MPTL_DV);
  }
  if (!p->has_exponents) return MPTL_OK;
  return p->backend->zero(p->device, p->exponents, (size_t)p->graph->n_ops * sizeof *p->exponents);
}

/* FP(e,m,auto): takes a rounder's bias shift from an array. */
static mptl_status fit(const mptl_program *p, mptl_rounder *rounder, const float *x, size_t n) {
  float largest;
  if (!rounder->format.auto_bias) return MPTL_OK;
  MPTL_TRY(p->backend->max_abs(p->device, &largest, x, n));
  mptl_rounder_fit(rounder, largest);
  return MPTL_OK;
}

/* Rounds what is listed, and empties the list. */
static mptl_status round_list(const mptl_program *p, mptl_rounding_list *list) {
  size_t count = list->count;
  list->count = 0;
  return count > 0 ? p->backend->round(p->device, list->arrays, count) : MPTL_OK;
}

/* How parameter k of a call is rounded from its master. In binary32 the master itself computes: there is no rounder. */
static mptl_status describe_theta(mptl_rounding *a, const mptl_program *p, const mptl_call *c, int k, bool count) {
  int op = (int)(c->op - p->graph->ops), index = c->op->first_param + k;
  const mptl_param *param = &p->graph->params[index];
  *a = (mptl_rounding){.src = p->model->params[index]->data, .n = param->numel};
  if (count) a->exponents = exponents_of(p, op, MPTL_THETA);
  if (c->theta_rounder->is_identity) return MPTL_OK;
  a->rounder = p->param_rounders[index].theta;
  a->key = key_of(p, op, MPTL_THETA);
  a->index0 = (uint64_t)k << 32;
  if (!count) return MPTL_OK;
  a->stats = &p->record.stats[op][MPTL_THETA];
  return fit(p, p->param_rounders[index].theta, a->src, a->n);
}

/* Lists parameter k of a call, to be rounded to a place. */
static mptl_status list_theta(mptl_program *p, mptl_call *c, int k, float *to, bool count) {
  mptl_rounding a;
  MPTL_TRY(describe_theta(&a, p, c, k, count));
  if (a.rounder != NULL) c->theta[k] = a.dst = to;
  if (a.dst != NULL || a.exponents != NULL) p->theta.arrays[p->theta.count++] = a;
  return MPTL_OK;
}

/* Rounds a stage's parameters, as one list, into scratch memory, where the next stage overwrites them: backward does it again, to the
 * same bits, uncounted. Those that the program keeps are another list's. */
static mptl_status round_theta(mptl_program *p, const mptl_program_stage *s, bool count) {
  char *at = p->scratch;
  for (int i = 0; i < s->run.n; i++) {
    mptl_call *c = s->run.calls[i];
    for (int k = 0; k < c->op->n_param; k++) {
      const mptl_param *param = &p->graph->params[c->op->first_param + k];
      if (param->buffer || mptl_is_kept(p, param)) continue;
      if (mptl_is_weights(p, param)) {
        MPTL_TRY(describe_theta(&c->weights, p, c, k, count));
        continue;
      }
      MPTL_TRY(list_theta(p, c, k, (float *)at, count));
      if (!c->theta_rounder->is_identity) at += mptl_theta_bytes(param);
    }
  }
  return round_list(p, &p->theta);
}

/* Rounds the parameters that the program keeps from forward to backward, as one list. */
static mptl_status round_kept(mptl_program *p) {
  if (p->kept_bytes == 0) return MPTL_OK;
  char *at = (char *)p->saved + p->memory.state - p->kept_bytes;
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    for (int k = 0; k < c->op->n_param; k++) {
      const mptl_param *param = &p->graph->params[c->op->first_param + k];
      if (!mptl_is_kept(p, param)) continue;
      MPTL_TRY(list_theta(p, c, k, (float *)at, true));
      at += mptl_theta_bytes(param);
    }
  }
  return round_list(p, &p->theta);
}

/* ---- What a step tells ---- */

/* Brings the record to the host: once what it tells is all there. Parameters in binary32 are not rounded, but counted. */
static mptl_status fetch(mptl_program *p) {
  MPTL_TRY(p->backend->download(p->device, p->fetched.facts, p->record.facts, mptl_record_bytes(p)));
  if (p->has_exponents)
    MPTL_TRY(p->backend->download(p->device, p->fetched_exponents, p->exponents, (size_t)p->graph->n_ops * sizeof *p->exponents));
  for (int i = 0; i < p->graph->n_params; i++) {
    const mptl_param *param = &p->graph->params[i];
    if (!param->buffer && p->rounders[param->op][MPTL_THETA].is_identity)
      p->fetched.stats[param->op][MPTL_THETA].elements += param->numel;
  }
  return MPTL_OK;
}

/* The end of a run of stages: fetches what it tells, or, where something has failed, waits all the same: what the caller lent is the
 * caller's again. */
static mptl_status finish(mptl_program *p, mptl_status status) {
  if (status == MPTL_OK) return fetch(p);
  p->backend->synchronize(p->device);
  return status;
}

/* Whether a forward tensor met a NaN. The step's loss is NaN then, and it is not applied: also where the format has no code for NaN. */
static bool forward_has_nan(const mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++)
    if (p->fetched.stats[i][MPTL_V].nan_in + p->fetched.stats[i][MPTL_THETA].nan_in > 0) return true;
  return false;
}

/* Whether no gradient was infinite or NaN: when any backward tensor overflowed or holds inf or NaN, the step is not finite, so that storage
 * without a code for infinity takes the same decision. Rounding to binary32 does not look at the values, parameter gradients in it were
 * looked at by themselves. */
static bool gradients_finite(const mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    const mptl_round_stats *dv = &p->fetched.stats[i][MPTL_DV], *dtheta = &p->fetched.stats[i][MPTL_DTHETA];
    if (dv->overflow + dv->inf_in + dv->nan_in + dtheta->overflow + dtheta->inf_in + dtheta->nan_in > 0) return false;
  }
  return p->fetched.facts->nonfinite == 0;
}

static mptl_result forward_result(const mptl_program *p, int n) {
  const mptl_loss *loss = &p->fetched.facts->loss;
  return (mptl_result){.loss = forward_has_nan(p) ? (double)NAN : loss->sum, .correct = loss->correct, .count = n};
}

/* ---- Forward ---- */

/* Since when a stage runs, and for how long; on devices that the host does not wait for, only if that is asked for. */
static double stage_seconds(const mptl_program *p, double since) {
  if (!p->time_stages && !p->backend->is_host) return 0;
  p->backend->synchronize(p->device); /* its failures are told by fetch */
  return mptl_now() - since;
}

static mptl_status check_labels(const mptl_program *p, const int32_t *labels, int n) {
  const mptl_op *op = p->slots[p->loss].call.op;
  int classes = mptl_input_shape(p->graph, op, 0).c;
  for (int i = 0; i < n; i++)
    if (labels[i] < 0 || labels[i] >= classes)
      return mptl_fail(MPTL_EINVAL, "%s (%s): label of sample %d: %d, accepted are 0 to %d", op->name, op->kind->name, i,
                       (int)labels[i], classes - 1);
  return MPTL_OK;
}

/* Where the classes are in memory: those of a flattened image lie there pixel by pixel. */
static mptl_status take_labels(mptl_program *p, const int32_t *labels, int n) {
  enum { PIECE = 256 };
  const mptl_graph *g = p->graph;
  mptl_shape image = g->values[g->values[p->slots[p->loss].call.op->in[0]].base].shape;
  int area = image.h * image.w;
  for (int at = 0; at < n; at += PIECE) {
    int32_t places[PIECE];
    int count = n - at < PIECE ? n - at : PIECE;
    for (int i = 0; i < count; i++) places[i] = labels[at + i] % area * image.c + labels[at + i] / area;
    MPTL_TRY(p->backend->upload(p->device, p->labels + at, places, (size_t)count * sizeof *places));
  }
  return MPTL_OK;
}

/* Gives the first stage the batch: where it is, or a copy in the device's memory. */
static mptl_status take_batch(mptl_program *p, const float *images, const int32_t *labels, int n) {
  MPTL_TRY(take_labels(p, labels, n));
  p->slots[0].call.in[0].data = images;
  if (p->backend->is_host) return MPTL_OK;
  char *copy = p->scratch + mptl_images_offset(&p->stages[0]);
  p->slots[0].call.in[0].data = copy;
  size_t image = p->memory.images / (size_t)p->options.batch;
  return p->backend->lend(p->device, copy, images, (size_t)n * image); /* until the end: see finish */
}

static mptl_status run_forward(mptl_program *p, const float *images, const int32_t *labels, int n, uint32_t step) {
  int batch = p->options.batch;
  if (n < 1 || n > batch || (p->options.train && n != batch))
    return mptl_fail(MPTL_EINVAL, "batch of %d samples, the program takes %s%d", n, p->options.train ? "" : "1 to ", batch);
  MPTL_TRY(check_labels(p, labels, n));
  p->forward_done = false;
  p->theta.count = p->dtheta.count = 0; /* a step that failed half way leaves something in them */
  MPTL_TRY(mptl_program_follow_assignment(p));
  MPTL_TRY(mptl_program_acquire(p));
  p->step = step;
  set_keys(p);
  MPTL_TRY(set_exponents(p));
  MPTL_TRY(p->backend->zero(p->device, p->record.facts, mptl_record_bytes(p)));
  MPTL_TRY(take_batch(p, images, labels, n));
  MPTL_TRY(round_kept(p));
  for (int i = 0; i < p->n_stages; i++) {
    mptl_program_stage *s = &p->stages[i];
    double start = mptl_now();
    for (int k = 0; k < s->run.n; k++) s->run.calls[k]->n_valid = n;
    MPTL_TRY(round_theta(p, s, true));
    MPTL_TRY(p->backend->forward(p->device, &s->run));
    p->costs[s->last].forward = stage_seconds(p, start);
  }
  p->forward_done = true;
  return MPTL_OK;
}

mptl_status mptl_program_forward(mptl_program *p, const float *images, const int32_t *labels, int n, uint32_t step,
                                 mptl_result *result) {
  MPTL_TRY(finish(p, run_forward(p, images, labels, n, step)));
  *result = forward_result(p, n);
  return MPTL_OK;
}

/* ---- Backward ---- */

/* The gradient of the samples' losses, rounded as any gradient of an output. */
static mptl_status seed_gradient(mptl_program *p, double loss_scale) {
  mptl_sink sink = {.data = mptl_gradient_data(p, p->loss),
                    .size = p->slots[p->loss].call.dy.size,
                    .rounder = &p->rounders[p->loss][MPTL_DV],
                    .key = key_of(p, p->loss, MPTL_DV),
                    .wanted = true,
                    .stats = &p->record.stats[p->loss][MPTL_DV],
                    .exponents = exponents_of(p, p->loss, MPTL_DV)};
  float seed = (float)(loss_scale / p->options.batch);
  mptl_rounder_fit(sink.rounder, mptl_max_abs_f32(&seed, 1));
  return p->backend->fill(p->device, &sink, seed, (size_t)p->options.batch);
}

/* Lists the parameter gradients of a stage, to be rounded in place. */
static mptl_status list_dtheta(mptl_program *p, const mptl_program_stage *s) {
  for (int i = 0; i < s->run.n; i++) {
    mptl_call *c = s->run.calls[i];
    int op = (int)(c->op - p->graph->ops);
    for (int k = 0; k < c->op->n_param; k++) {
      size_t n = p->graph->params[c->op->first_param + k].numel;
      if (c->dtheta[k] == NULL) continue;
      mptl_rounder *rounder = p->param_rounders[c->op->first_param + k].dtheta;
      MPTL_TRY(fit(p, rounder, c->dtheta[k], n));
      p->dtheta.arrays[p->dtheta.count++] = (mptl_rounding){.dst = c->dtheta[k],
                                                            .src = c->dtheta[k],
                                                            .n = n,
                                                            .rounder = rounder,
                                                            .key = key_of(p, op, MPTL_DTHETA),
                                                            .index0 = (uint64_t)k << 32,
                                                            .stats = &p->record.stats[op][MPTL_DTHETA],
                                                            .exponents = exponents_of(p, op, MPTL_DTHETA)};
    }
  }
  return MPTL_OK;
}

/* The parameters of operators that the loss does not depend on. */
static mptl_status zero_dtheta(mptl_program *p, const mptl_program_stage *s) {
  for (int i = 0; i < s->run.n; i++) {
    mptl_call *c = s->run.calls[i];
    for (int k = 0; k < c->op->n_param; k++)
      if (c->dtheta[k])
        MPTL_TRY(p->backend->zero(p->device, c->dtheta[k], p->graph->params[c->op->first_param + k].numel * sizeof(float)));
  }
  return MPTL_OK;
}

/* Looks at the parameters' gradients where rounding does not: those in binary32. */
static mptl_status find_nonfinite(mptl_program *p) {
  bool any = false;
  for (int i = 0; i < p->graph->n_params; i++) {
    const mptl_param *param = &p->graph->params[i];
    any = any || (!param->buffer && p->rounders[param->op][MPTL_DTHETA].is_identity);
  }
  return any ? p->backend->find_nonfinite(p->device, &p->record.facts->nonfinite, p->model->trained) : MPTL_OK;
}

/* Gradients of parameters are rounded stage by stage where they are in caches still, or where stages are timed; elsewhere all of them
 * together at the end, since nothing reads them before the update. */
static mptl_status run_backward(mptl_program *p, double loss_scale) {
  if (!p->options.train) return mptl_fail(MPTL_EINVAL, "backward: the program was compiled for evaluation");
  if (!p->forward_done) return mptl_fail(MPTL_EINVAL, "backward: run forward first");
  MPTL_TRY(mptl_program_check_owner(p, "backward"));
  p->forward_done = false; /* gradients take the places of outputs, so backward runs once, also if it fails */
  bool by_stage = p->backend->is_host || p->time_stages;
  MPTL_TRY(seed_gradient(p, loss_scale));
  for (int i = p->n_stages - 1; i > 0; i--) {
    mptl_program_stage *s = &p->stages[i];
    double start = mptl_now();
    if (p->slots[s->last].life.live) {
      MPTL_TRY(round_theta(p, s, false));
      MPTL_TRY(p->backend->backward(p->device, &s->run));
      MPTL_TRY(list_dtheta(p, s));
      if (by_stage) MPTL_TRY(round_list(p, &p->dtheta));
    } else {
      MPTL_TRY(zero_dtheta(p, s));
    }
    p->costs[s->last].backward = stage_seconds(p, start);
  }
  MPTL_TRY(round_list(p, &p->dtheta));
  return find_nonfinite(p);
}

mptl_status mptl_program_backward(mptl_program *p, double loss_scale, bool *finite) {
  MPTL_TRY(finish(p, run_backward(p, loss_scale)));
  *finite = gradients_finite(p) && !forward_has_nan(p);
  return MPTL_OK;
}

mptl_status mptl_program_step(mptl_program *p, const float *images, const int32_t *labels, int n, uint32_t step,
                              const mptl_update *update, mptl_result *result) {
  mptl_status status = run_forward(p, images, labels, n, step);
  if (status == MPTL_OK) status = run_backward(p, update->loss_scale);
  MPTL_TRY(finish(p, status));
  *result = forward_result(p, n);
  result->applied = !update->skip_nonfinite || (gradients_finite(p) && !forward_has_nan(p));
  double start = mptl_now();
  status = result->applied ? mptl_model_update(p->model, update) : MPTL_OK;
  p->update_seconds = stage_seconds(p, start);
  return status;
}
