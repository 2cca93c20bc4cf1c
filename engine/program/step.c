/* Running a program: forward, backward, update. */
#include <math.h>

#include "core/clock.h"
#include "program/inside.h"

/* What the step is, as operators see it. */
static mptl_status set_step(mptl_program *p, uint32_t number, int n_valid) {
  p->has_exponents = p->want_exponents;
  p->step = (mptl_step){.seed = p->options.seed, .number = number, .n_valid = n_valid, .stats = p->record.stats};
  if (!p->has_exponents) return MPTL_OK;
  p->step.exponents = p->exponents;
  return p->backend->zero(p->device, p->exponents, (size_t)p->graph->n_ops * sizeof *p->exponents);
}

/* ---- Parameters ---- */

/* Where the step counts the exponents of a tensor; NULL: not wanted. */
static mptl_exponents *exponents_of(const mptl_program *p, int op, mptl_role role) {
  return p->has_exponents ? &p->exponents[op][role] : NULL;
}

static mptl_key key_of(const mptl_program *p, int op, mptl_role role) {
  return mptl_tensor_key(&p->step, mptl_tensor_of(op, role));
}

/* Rounds what is listed, and empties the list. */
static mptl_status round_list(const mptl_program *p, mptl_rounding_list *list) {
  size_t count = list->count;
  list->count = 0;
  return count > 0 ? p->backend->round(p->device, list->arrays, count) : MPTL_OK;
}

/* Lists parameter k of an operator, to be rounded where it belongs; those that the operator rounds are only fitted. In binary32 the master
 * itself computes: there is nothing to round, but exponents may be wanted. */
static mptl_status list_theta(mptl_program *p, const mptl_op *op, int k, bool count) {
  int i = (int)(op - p->graph->ops), index = op->first_param + k;
  const mptl_param *param = &p->graph->params[index];
  const mptl_param_rounding *r = &p->params[index];
  mptl_rounding a = {.src = p->model->params[index]->data, .n = param->numel};
  if (count && !r->theta->is_identity) MPTL_TRY(mptl_program_fit_array(p, r->theta, a.src, a.n));
  if (mptl_is_weights(p, param)) return MPTL_OK;
  if (count) a.exponents = exponents_of(p, i, MPTL_THETA);
  if (r->rounded != NULL) {
    a.dst = r->rounded;
    a.rounder = r->theta;
    a.key = key_of(p, i, MPTL_THETA);
    a.index0 = (uint64_t)k << 32;
    if (count) a.stats = &p->record.stats[i][MPTL_THETA];
  }
  if (a.dst != NULL || a.exponents != NULL) p->theta.arrays[p->theta.count++] = a;
  return MPTL_OK;
}

/* Rounds a stage's parameters, as one list, into scratch memory, where the next stage overwrites them: backward does it again, to the
 * same bits, uncounted. Those that the program keeps are another list's. */
static mptl_status round_theta(mptl_program *p, const mptl_program_stage *s, bool count) {
  for (int i = 0; i < s->run.n; i++) {
    const mptl_op *op = s->run.members[i].is->op;
    for (int k = 0; k < op->n_param; k++) {
      const mptl_param *param = &p->graph->params[op->first_param + k];
      if (!param->buffer && !mptl_is_kept(p, param)) MPTL_TRY(list_theta(p, op, k, count));
    }
  }
  return round_list(p, &p->theta);
}

/* Rounds the parameters that the program keeps from forward to backward, as one list. */
static mptl_status round_kept(mptl_program *p) {
  if (p->kept_bytes == 0) return MPTL_OK;
  for (int i = 0; i < p->graph->n_ops; i++) {
    const mptl_op *op = &p->graph->ops[i];
    for (int k = 0; k < op->n_param; k++)
      if (mptl_is_kept(p, &p->graph->params[op->first_param + k])) MPTL_TRY(list_theta(p, op, k, true));
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

/* Ends a run of stages: fetches its results. On failure, synchronizes too: the caller may then reuse its images. */
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
  bool accuracy = mptl_counts_accuracy(p->graph->ops[p->loss].kind, p->options.targets);
  return (mptl_result){
      .loss = forward_has_nan(p) ? (double)NAN : loss->sum, .correct = accuracy ? loss->correct : -1, .count = n};
}

/* ---- Forward ---- */

/* Since when a stage runs, and for how long; on devices that the host does not wait for, only if that is asked for. */
static double stage_seconds(const mptl_program *p, double since) {
  if (!p->time_stages && !p->backend->is_host) return 0;
  p->backend->synchronize(p->device); /* its failures are told by fetch */
  return mptl_now() - since;
}

static mptl_status check_targets(const mptl_program *p, const mptl_targets *t, int n) {
  const mptl_op *op = &p->graph->ops[p->loss];
  int classes = mptl_input_shape(p->graph, op, 0).c;
  bool labels = p->options.targets == MPTL_LABELS;
  if ((labels ? (const void *)t->labels : t->values) == NULL)
    return mptl_fail(MPTL_EINVAL, "%s (%s): targets are %s, the program takes %s", op->name, op->kind->name,
                     labels ? "values" : "labels", labels ? "labels" : "values");
  for (int i = 0; labels && i < n; i++)
    if (t->labels[i] < 0 || t->labels[i] >= classes)
      return mptl_fail(MPTL_EINVAL, "%s (%s): label of sample %d: %d, accepted are 0 to %d", op->name, op->kind->name, i,
                       (int)t->labels[i], classes - 1);
  return MPTL_OK;
}

enum { PIECE = 256 }; /* targets uploaded at a time */

/* Labels as places in the loss's input. */
static mptl_status take_labels(mptl_program *p, const int32_t *labels, int n, mptl_shape layout) {
  for (int at = 0; at < n; at += PIECE) {
    int32_t places[PIECE];
    int count = n - at < PIECE ? n - at : PIECE;
    for (int i = 0; i < count; i++) places[i] = (int32_t)mptl_place_of(layout, (size_t)labels[at + i]);
    MPTL_TRY(p->backend->upload(p->device, (int32_t *)p->targets + at, places, (size_t)count * sizeof *places));
  }
  return MPTL_OK;
}

/* Values in the layout of the loss's input. */
static mptl_status take_values(mptl_program *p, const float *values, int n, mptl_shape layout) {
  size_t each = mptl_shape_numel(layout), count = (size_t)n * each;
  for (size_t at = 0; at < count; at += PIECE) {
    float piece[PIECE];
    size_t here = count - at < PIECE ? count - at : PIECE;
    for (size_t i = 0; i < here; i++) {
      size_t sample = (at + i) / each, place = (at + i) % each;
      piece[i] = values[sample * each + mptl_index_of(layout, place)];
    }
    MPTL_TRY(p->backend->upload(p->device, (float *)p->targets + at, piece, here * sizeof *piece));
  }
  return MPTL_OK;
}

static mptl_status take_targets(mptl_program *p, const mptl_targets *t, int n) {
  mptl_shape layout = mptl_input_layout(p->graph, &p->graph->ops[p->loss], 0);
  return p->options.targets == MPTL_LABELS ? take_labels(p, t->labels, n, layout) : take_values(p, t->values, n, layout);
}

/* Gives the first stage the batch: where it is, or a copy in the device's memory. */
static mptl_status take_batch(mptl_program *p, const float *images, const mptl_targets *targets, int n) {
  MPTL_TRY(take_targets(p, targets, n));
  p->step.images = images;
  if (p->backend->is_host) return MPTL_OK;
  char *copy = p->scratch + mptl_images_offset(&p->stages[0]);
  p->step.images = (const float *)(void *)copy;
  size_t image = p->memory.images / (size_t)p->options.batch;
  return p->backend->lend(p->device, copy, images, (size_t)n * image); /* until the end: see finish */
}

static mptl_status run_stage(mptl_program *p, const mptl_program_stage *s, bool forward) {
  MPTL_TRY(mptl_program_fit_results(p, s, forward));
  return p->backend->run(p->device, &s->run, &p->step, forward);
}

static mptl_status run_forward(mptl_program *p, const float *images, const mptl_targets *targets, int n, uint32_t step) {
  int batch = p->options.batch;
  if (n < 1 || n > batch || (p->options.train && n != batch))
    return mptl_fail(MPTL_EINVAL, "batch of %d samples, the program takes %s%d", n, p->options.train ? "" : "1 to ", batch);
  MPTL_TRY(check_targets(p, targets, n));
  p->forward_done = false;
  p->theta.count = p->dtheta.count = 0; /* a step that failed half way leaves something in them */
  MPTL_TRY(mptl_program_follow_assignment(p));
  MPTL_TRY(mptl_program_acquire(p));
  MPTL_TRY(set_step(p, step, n));
  MPTL_TRY(p->backend->zero(p->device, p->record.facts, mptl_record_bytes(p)));
  MPTL_TRY(take_batch(p, images, targets, n));
  p->step.counts_parameters = true;
  MPTL_TRY(round_kept(p));
  for (int i = 0; i < p->n_stages; i++) {
    mptl_program_stage *s = &p->stages[i];
    double start = mptl_now();
    MPTL_TRY(round_theta(p, s, true));
    MPTL_TRY(run_stage(p, s, true));
    p->costs[s->last].forward = stage_seconds(p, start);
  }
  p->forward_done = true;
  return MPTL_OK;
}

mptl_status mptl_program_forward(mptl_program *p, const float *images, const mptl_targets *targets, int n, uint32_t step,
                                 mptl_result *result) {
  MPTL_TRY(finish(p, run_forward(p, images, targets, n, step)));
  *result = forward_result(p, n);
  return MPTL_OK;
}

/* ---- Backward ---- */

/* The gradient of the samples' losses, rounded as any gradient of an output. */
static mptl_status seed_gradient(mptl_program *p, double loss_scale) {
  mptl_rounder *rounder = &p->rounders[p->loss][MPTL_DV];
  mptl_sink sink = {.data = mptl_gradient_data(p, p->loss),
                    .size = p->nodes[p->loss].on.dy.size,
                    .rounder = rounder,
                    .key = key_of(p, p->loss, MPTL_DV),
                    .wanted = true,
                    .stats = &p->record.stats[p->loss][MPTL_DV],
                    .exponents = exponents_of(p, p->loss, MPTL_DV)};
  float seed = (float)(loss_scale / p->options.batch);
  mptl_rounder_fit(rounder, mptl_max_abs_f32(&seed, 1));
  return p->backend->fill(p->device, &sink, seed, (size_t)p->options.batch);
}

/* Lists the parameter gradients of a stage, to be rounded in place. */
static mptl_status list_dtheta(mptl_program *p, const mptl_program_stage *s) {
  for (int i = 0; i < s->run.n; i++) {
    const mptl_member *m = &s->run.members[i];
    int op = (int)(m->is->op - p->graph->ops);
    for (int k = 0; k < m->is->op->n_param; k++) {
      size_t n = p->graph->params[m->is->op->first_param + k].numel;
      float *gradient = m->on->dtheta[k];
      if (gradient == NULL) continue;
      mptl_rounder *rounder = p->params[m->is->op->first_param + k].dtheta;
      MPTL_TRY(mptl_program_fit_array(p, rounder, gradient, n));
      p->dtheta.arrays[p->dtheta.count++] = (mptl_rounding){.dst = gradient,
                                                            .src = gradient,
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
    const mptl_member *m = &s->run.members[i];
    for (int k = 0; k < m->is->op->n_param; k++) {
      size_t n = p->graph->params[m->is->op->first_param + k].numel;
      if (m->on->dtheta[k] != NULL) MPTL_TRY(p->backend->zero(p->device, m->on->dtheta[k], n * sizeof(float)));
    }
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
  p->step.counts_parameters = false;
  MPTL_TRY(seed_gradient(p, loss_scale));
  for (int i = p->n_stages - 1; i > 0; i--) {
    mptl_program_stage *s = &p->stages[i];
    double start = mptl_now();
    if (p->nodes[s->last].life.live) {
      MPTL_TRY(round_theta(p, s, false));
      MPTL_TRY(run_stage(p, s, false));
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

mptl_status mptl_program_step(mptl_program *p, const float *images, const mptl_targets *targets, int n, uint32_t step,
                              const mptl_update *update, mptl_result *result) {
  mptl_status status = run_forward(p, images, targets, n, step);
  if (status == MPTL_OK) status = run_backward(p, update->loss_scale);
  MPTL_TRY(finish(p, status));
  *result = forward_result(p, n);
  result->applied = !update->skip_nonfinite || (gradients_finite(p) && !forward_has_nan(p));
  double start = mptl_now();
  status = result->applied ? mptl_model_update(p->model, update) : MPTL_OK;
  p->update_seconds = stage_seconds(p, start);
  return status;
}
