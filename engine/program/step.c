/* Runs a program: forward, backward, update (method.md 3 and 5).
 *
 * A program runs stage by stage. Before each stage, the stage's parameters are rounded from their
 * binary32 masters; the backend then computes the stage's operators from the rounded parameters and
 * inputs, and rounds and counts each result. Statistics, the loss and the check for infinities and
 * NaNs are collected in the record, in the device's memory; one download at the end of the step
 * brings it to the host. So a GPU works through a step without waiting for the host (but see
 * FP(e,m,auto) in ranges.c, and mptl_program_time_stages).
 */
#include <math.h>

#include "core/clock.h"
#include "program/inside.h"

/* Sets the data of this step that operators read: seed, step number, valid samples, and where to
 * count. */
static mptl_status set_step(mptl_program *p, uint32_t number, int n_valid) {
  p->has_exponents = p->want_exponents;
  p->step = (mptl_step){
      .seed = p->options.seed, .number = number, .n_valid = n_valid, .stats = p->record.stats};
  if (!p->has_exponents) return MPTL_OK;
  p->step.exponents = p->exponents;
  return p->backend->zero(p->device, p->exponents, (size_t)p->graph->n_ops * sizeof *p->exponents);
}

/* ---- Parameters ----
 *
 * Operators read parameters that are rounded to their theta format. The masters do not change, so
 * forward and backward each round them again, to the same bits, and the copies need only the
 * scratch memory of one stage. */

/* Where this step counts the exponents of a tensor; NULL: it does not count them. */
static mptl_exponents *exponents_of(const mptl_program *p, int op, mptl_role role) {
  return p->has_exponents ? &p->exponents[op][role] : NULL;
}

/* The key of the random bits that round a tensor. */
static mptl_key key_of(const mptl_program *p, int op, mptl_role role) {
  return mptl_tensor_key(&p->step, mptl_tensor_of(op, role));
}

/* Rounds the listed arrays in one call of the backend, and empties the list. */
static mptl_status round_list(const mptl_program *p, mptl_rounding_list *list) {
  size_t count = list->count;
  list->count = 0;
  return count > 0 ? p->backend->round(p->device, list->arrays, count) : MPTL_OK;
}

/* Adds parameter k of an operator to the list of parameters to be rounded, with statistics if
 * count. Parameters that the operator itself rounds are not listed. Nor are parameters in binary32,
 * which operators read from the master, unless their exponents are counted. With count, sets the
 * parameter's bias shift in FP(e,m,auto), whoever rounds it. */
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

/* Rounds a stage's parameters into its scratch memory, which the next stage overwrites. Backward
 * does it again, with count false. Kept parameters (mptl_is_kept) are left to round_kept. */
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

/* Rounds the kept parameters of all operators, once a step: their copies live from forward to
 * backward. */
static mptl_status round_kept(mptl_program *p) {
  if (p->kept_bytes == 0) return MPTL_OK;
  for (int i = 0; i < p->graph->n_ops; i++) {
    const mptl_op *op = &p->graph->ops[i];
    for (int k = 0; k < op->n_param; k++)
      if (mptl_is_kept(p, &p->graph->params[op->first_param + k]))
        MPTL_TRY(list_theta(p, op, k, true));
  }
  return round_list(p, &p->theta);
}

/* ---- The results of a step ----
 *
 * The record comes to the host once, after the last stage. From its statistics the host decides
 * whether the step is finite (method.md 3.5), and so whether the update is made. */

/* Waits for the device and copies the record to the host. Adds the elements of parameters in
 * binary32, which no rounding has counted. */
static mptl_status fetch(mptl_program *p) {
  MPTL_TRY(
      p->backend->download(p->device, p->fetched.facts, p->record.facts, mptl_record_bytes(p)));
  if (p->has_exponents)
    MPTL_TRY(p->backend->download(p->device, p->fetched_exponents, p->exponents,
                                  (size_t)p->graph->n_ops * sizeof *p->exponents));
  for (int i = 0; i < p->graph->n_params; i++) {
    const mptl_param *param = &p->graph->params[i];
    if (!param->buffer && p->rounders[param->op][MPTL_THETA].is_identity)
      p->fetched.stats[param->op][MPTL_THETA].elements += param->numel;
  }
  return MPTL_OK;
}

/* Ends forward, backward or a step that returned status: fetches the results. After a failure,
 * waits for the device, so that the caller may reuse its images. */
static mptl_status finish(mptl_program *p, mptl_status status) {
  if (status == MPTL_OK) return fetch(p);
  p->backend->synchronize(p->device);
  return status;
}

/* Whether rounding met a NaN in an output or a parameter. The step's loss is NaN then, and the step
 * is not finite. The format need not have a code for NaN: statistics count values before they are
 * encoded. */
static bool forward_has_nan(const mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++)
    if (p->fetched.stats[i][MPTL_V].nan_in + p->fetched.stats[i][MPTL_THETA].nan_in > 0)
      return true;
  return false;
}

/* Whether no gradient overflowed or met an infinity or NaN. Statistics decide, not stored values,
 * so that formats without a code for infinity give the same answer. Rounding to binary32 does not
 * look for them; there find_nonfinite has checked the gradients of parameters. */
static bool gradients_finite(const mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++) {
    const mptl_round_stats *dv = &p->fetched.stats[i][MPTL_DV],
                           *dtheta = &p->fetched.stats[i][MPTL_DTHETA];
    if (dv->overflow + dv->inf_in + dv->nan_in + dtheta->overflow + dtheta->inf_in +
            dtheta->nan_in >
        0)
      return false;
  }
  return p->fetched.facts->nonfinite == 0;
}

/* The result of forward on n samples, from the fetched record. */
static mptl_result forward_result(const mptl_program *p, int n) {
  const mptl_loss *loss = &p->fetched.facts->loss;
  bool accuracy = mptl_counts_accuracy(p->graph->ops[p->loss].kind, p->options.targets);
  return (mptl_result){.loss = forward_has_nan(p) ? (double)NAN : loss->sum,
                       .correct = accuracy ? loss->correct : -1,
                       .count = n};
}

/* ---- Forward ----
 *
 * The batch goes to the device, then the stages run in order. With a new assignment (promotion, a
 * hook) the operands first get new formats, sizes and places: follow_assignment and acquire, both
 * in operands.c. */

/* Seconds from `since` until the device has done its work. Waits for the device. On a GPU 0,
 * without waiting, unless stages are timed. */
static double stage_seconds(const mptl_program *p, double since) {
  if (!p->time_stages && !p->backend->is_host) return 0;
  p->backend->synchronize(p->device); /* fetch reports a failure */
  return mptl_now() - since;
}

/* Checks that targets are of the program's type, and labels are classes. */
static mptl_status check_targets(const mptl_program *p, const mptl_targets *t, int n) {
  const mptl_op *op = &p->graph->ops[p->loss];
  int classes = mptl_input_shape(p->graph, op, 0).c;
  bool labels = p->options.targets == MPTL_LABELS;
  if ((labels ? (const void *)t->labels : t->values) == NULL)
    return mptl_fail(MPTL_EINVAL, "%s (%s): targets are %s, the program takes %s", op->name,
                     op->kind->name, labels ? "values" : "labels", labels ? "labels" : "values");
  for (int i = 0; labels && i < n; i++)
    if (t->labels[i] < 0 || t->labels[i] >= classes)
      return mptl_fail(MPTL_EINVAL, "%s (%s): label of sample %d: %d, accepted are 0 to %d",
                       op->name, op->kind->name, i, (int)t->labels[i], classes - 1);
  return MPTL_OK;
}

enum { PIECE = 256 }; /* targets in one upload */

/* Uploads labels. A label becomes the place of its class in the loss's input, by the input's
 * layout. */
static mptl_status take_labels(mptl_program *p, const int32_t *labels, int n, mptl_shape layout) {
  for (int at = 0; at < n; at += PIECE) {
    int32_t places[PIECE];
    int count = n - at < PIECE ? n - at : PIECE;
    for (int i = 0; i < count; i++)
      places[i] = (int32_t)mptl_place_of(layout, (size_t)labels[at + i]);
    MPTL_TRY(p->backend->upload(p->device, (int32_t *)p->targets + at, places,
                                (size_t)count * sizeof *places));
  }
  return MPTL_OK;
}

/* Uploads targets that are values, in the layout of the loss's input. */
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
  return p->options.targets == MPTL_LABELS ? take_labels(p, t->labels, n, layout)
                                           : take_values(p, t->values, n, layout);
}

/* Makes the batch available to the device: uploads the targets; a GPU gets a copy of the images
 * too, in the scratch memory of the first stage. */
static mptl_status take_batch(mptl_program *p, const float *images, const mptl_targets *targets,
                              int n) {
  MPTL_TRY(take_targets(p, targets, n));
  p->step.images = images;
  if (p->backend->is_host) return MPTL_OK;
  char *copy = p->scratch + mptl_images_offset(&p->stages[0]);
  p->step.images = (const float *)(void *)copy;
  size_t image = p->memory.images / (size_t)p->options.batch;
  return p->backend->lend(p->device, copy, images,
                          (size_t)n * image); /* the images must stay until finish returns */
}

/* Runs a stage, forward or backward. */
static mptl_status run_stage(mptl_program *p, const mptl_program_stage *s, bool forward) {
  MPTL_TRY(mptl_program_fit_results(p, s, forward));
  return p->backend->run(p->device, &s->run, &p->step, forward);
}

/* Starts forward; finish waits for it. */
static mptl_status run_forward(mptl_program *p, const float *images, const mptl_targets *targets,
                               int n, uint32_t step) {
  int batch = p->options.batch;
  if (n < 1 || n > batch || (p->options.train && n != batch))
    return mptl_fail(MPTL_EINVAL, "batch of %d samples, the program takes %s%d", n,
                     p->options.train ? "" : "1 to ", batch);
  MPTL_TRY(check_targets(p, targets, n));
  p->forward_done = false;
  p->theta.count = p->dtheta.count = 0; /* a step that failed may have left arrays in them */
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

mptl_status mptl_program_forward(mptl_program *p, const float *images, const mptl_targets *targets,
                                 int n, uint32_t step, mptl_result *result) {
  MPTL_TRY(finish(p, run_forward(p, images, targets, n, step)));
  *result = forward_result(p, n);
  return MPTL_OK;
}

/* ---- Backward ----
 *
 * The stages run in reverse order, each from the gradient of its output. PyTorch starts with a
 * gradient of 1 for the mean loss; here it is the loss scale, so each sample's loss gets loss scale
 * / batch. */

/* Stores the gradient of each sample's loss. It is the dv of the loss, and is rounded like any
 * dv. */
static mptl_status fill_loss_gradient(mptl_program *p, double loss_scale) {
  mptl_rounder *rounder = &p->rounders[p->loss][MPTL_DV];
  mptl_sink sink = {.data = mptl_gradient_data(p, p->loss),
                    .size = p->nodes[p->loss].on.dy.size,
                    .rounder = rounder,
                    .key = key_of(p, p->loss, MPTL_DV),
                    .wanted = true,
                    .stats = &p->record.stats[p->loss][MPTL_DV],
                    .exponents = exponents_of(p, p->loss, MPTL_DV)};
  float gradient = (float)(loss_scale / p->options.batch);
  mptl_rounder_fit(rounder, mptl_max_abs_f32(&gradient, 1));
  return p->backend->fill(p->device, &sink, gradient, (size_t)p->options.batch);
}

/* Adds the parameter gradients of a stage to the list of gradients to be rounded in place. */
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
      p->dtheta.arrays[p->dtheta.count++] =
          (mptl_rounding){.dst = gradient,
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

/* Sets a stage's parameter gradients to 0: the loss does not depend on its operators. */
static mptl_status zero_dtheta(mptl_program *p, const mptl_program_stage *s) {
  for (int i = 0; i < s->run.n; i++) {
    const mptl_member *m = &s->run.members[i];
    for (int k = 0; k < m->is->op->n_param; k++) {
      size_t n = p->graph->params[m->is->op->first_param + k].numel;
      if (m->on->dtheta[k] != NULL)
        MPTL_TRY(p->backend->zero(p->device, m->on->dtheta[k], n * sizeof(float)));
    }
  }
  return MPTL_OK;
}

/* Checks the gradients of parameters for infinities and NaNs, if some are in binary32, where
 * rounding does not check. */
static mptl_status find_nonfinite(mptl_program *p) {
  bool any = false;
  for (int i = 0; i < p->graph->n_params; i++) {
    const mptl_param *param = &p->graph->params[i];
    any = any || (!param->buffer && p->rounders[param->op][MPTL_DTHETA].is_identity);
  }
  return any ? p->backend->find_nonfinite(p->device, &p->record.facts->nonfinite, p->model->trained)
             : MPTL_OK;
}

/* Starts backward; finish waits for it. On the CPU, and if stages are timed, the gradients of
 * parameters are rounded after each stage, while they are in the caches. On GPUs all of them are
 * rounded at the end, with few launches: nothing reads them before the update. */
static mptl_status run_backward(mptl_program *p, double loss_scale) {
  if (!p->options.train)
    return mptl_fail(MPTL_EINVAL, "backward: the program was compiled for evaluation");
  if (!p->forward_done) return mptl_fail(MPTL_EINVAL, "backward: run forward first");
  MPTL_TRY(mptl_program_check_owner(p, "backward"));
  p->forward_done = false; /* gradients overwrite outputs: backward runs once, even if it fails */
  bool by_stage = p->backend->is_host || p->time_stages;
  p->step.counts_parameters = false;
  MPTL_TRY(fill_loss_gradient(p, loss_scale));
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

/* ---- A whole step ---- */

mptl_status mptl_program_step(mptl_program *p, const float *images, const mptl_targets *targets,
                              int n, uint32_t step, const mptl_update *update,
                              mptl_result *result) {
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
