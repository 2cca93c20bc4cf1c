/* Running a program: forward, backward, update. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "program/inside.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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

static void set_exponents(mptl_program *p) {
  p->has_exponents = p->want_exponents;
  if (p->has_exponents) memset(p->exponents, 0, (size_t)p->graph->n_ops * sizeof *p->exponents);
  for (int i = 0; i < p->graph->n_ops; i++) {
    mptl_call *c = &p->slots[i].call;
    c->y.exponents = exponents_of(p, i, MPTL_V);
    for (int k = 0; k < c->op->n_in; k++) c->dx[k].exponents = exponents_of(p, mptl_producer(p->graph, c->op, k), MPTL_DV);
  }
}

/* Rounds a stage's parameters from the masters into scratch memory, where the next stage overwrites them: backward does it again, to
 * the same bits, uncounted. Where the format is binary32 the master itself computes. */
static void round_theta(mptl_program *p, const mptl_program_stage *s, bool count) {
  char *at = p->scratch;
  for (int i = 0; i < s->run.n; i++) {
    mptl_call *c = s->run.calls[i];
    int op = (int)(c->op - p->graph->ops);
    for (int k = 0; k < c->op->n_param; k++) {
      const mptl_param *param = &p->graph->params[c->op->first_param + k];
      const float *master = p->model->params[c->op->first_param + k]->data;
      if (param->buffer) continue;
      if (count && p->has_exponents) p->backend->count_exponents(exponents_of(p, op, MPTL_THETA), master, param->numel);
      if (c->theta_rounder->is_identity) {
        if (count) p->stats[op][MPTL_THETA].elements += param->numel;
        continue;
      }
      mptl_round_stats uncounted = {0};
      p->backend->round((float *)at, master, param->numel, c->theta_rounder, key_of(p, op, MPTL_THETA), (uint64_t)k << 32,
                        count ? &p->stats[op][MPTL_THETA] : &uncounted);
      c->theta[k] = (float *)at;
      at += (param->numel * sizeof(float) + 63) / 64 * 64;
    }
  }
}

/* Whether a forward tensor met a NaN. The step's loss is NaN then, and it is not applied: also where the format has no code for NaN. */
static bool forward_has_nan(const mptl_program *p) {
  for (int i = 0; i < p->graph->n_ops; i++)
    if (p->stats[i][MPTL_V].nan_in + p->stats[i][MPTL_THETA].nan_in > 0) return true;
  return false;
}

mptl_status mptl_program_forward(mptl_program *p, const float *images, const int32_t *labels, int n, uint32_t step,
                                 mptl_result *result) {
  int batch = p->options.batch;
  if (n < 1 || n > batch || (p->options.train && n != batch))
    return mptl_fail(MPTL_EINVAL, "batch of %d samples, the program takes %s%d", n, p->options.train ? "" : "1 to ", batch);
  p->backend->use_threads(p->threads);
  p->forward_done = false;
  MPTL_TRY(mptl_program_follow_assignment(p));
  MPTL_TRY(mptl_program_acquire(p));
  p->step = step;
  set_keys(p);
  set_exponents(p);
  memcpy(p->labels, labels, (size_t)n * sizeof *labels);
  memset(p->stats, 0, (size_t)p->graph->n_ops * sizeof *p->stats);
  p->slots[0].call.in[0].data = images;
  for (int i = 0; i < p->n_stages; i++) {
    mptl_program_stage *s = &p->stages[i];
    double start = now();
    for (int k = 0; k < s->run.n; k++) s->run.calls[k]->n_valid = n;
    round_theta(p, s, true);
    MPTL_TRY(p->backend->forward(&s->run));
    p->costs[s->last].forward = now() - start;
  }
  const mptl_call *loss = &p->slots[p->loss].call;
  *result = (mptl_result){.loss = forward_has_nan(p) ? (double)NAN : loss->loss_sum, .correct = loss->correct, .count = n};
  p->forward_done = true;
  return MPTL_OK;
}

/* The gradient of the samples' losses, rounded as any gradient of an output. */
static void seed_gradient(mptl_program *p, double loss_scale) {
  const mptl_call *c = &p->slots[p->loss].call;
  float seed = (float)(loss_scale / p->options.batch);
  size_t n = (size_t)p->options.batch;
  char *at = mptl_gradient_data(p, p->loss);
  for (size_t i = 0; i < n; i++) {
    if (p->has_exponents) mptl_count_exponent(exponents_of(p, p->loss, MPTL_DV), mptl_f32_bits(seed));
    if (c->dy.size < sizeof(float))
      mptl_encode_f32(at + i * c->dy.size, &seed, 1, c->dy.rounder, key_of(p, p->loss, MPTL_DV), i, &p->stats[p->loss][MPTL_DV]);
    else
      mptl_round_f32((float *)at + i, &seed, 1, &p->rounders[p->loss][MPTL_DV], key_of(p, p->loss, MPTL_DV), i,
                     &p->stats[p->loss][MPTL_DV]);
  }
}

/* Rounds the parameter gradients of a stage in place. */
static void round_dtheta(mptl_program *p, const mptl_program_stage *s) {
  for (int i = 0; i < s->run.n; i++) {
    mptl_call *c = s->run.calls[i];
    int op = (int)(c->op - p->graph->ops);
    for (int k = 0; k < c->op->n_param; k++) {
      size_t n = p->graph->params[c->op->first_param + k].numel;
      if (c->dtheta[k] == NULL) continue;
      if (p->has_exponents) p->backend->count_exponents(exponents_of(p, op, MPTL_DTHETA), c->dtheta[k], n);
      p->backend->round(c->dtheta[k], c->dtheta[k], n, &p->rounders[op][MPTL_DTHETA], key_of(p, op, MPTL_DTHETA),
                        (uint64_t)k << 32, &p->stats[op][MPTL_DTHETA]);
    }
  }
}

/* The parameters of operators that the loss does not depend on. */
static void zero_dtheta(mptl_program *p, const mptl_program_stage *s) {
  for (int i = 0; i < s->run.n; i++) {
    mptl_call *c = s->run.calls[i];
    for (int k = 0; k < c->op->n_param; k++)
      if (c->dtheta[k]) memset(c->dtheta[k], 0, p->graph->params[c->op->first_param + k].numel * sizeof(float));
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
  MPTL_TRY(mptl_program_check_owner(p, "backward"));
  p->backend->use_threads(p->threads);
  seed_gradient(p, loss_scale);
  for (int i = p->n_stages - 1; i > 0; i--) {
    mptl_program_stage *s = &p->stages[i];
    double start = now();
    if (p->slots[s->last].life.live) {
      round_theta(p, s, false);
      MPTL_TRY(p->backend->backward(&s->run));
      round_dtheta(p, s);
    } else {
      zero_dtheta(p, s);
    }
    p->costs[s->last].backward = now() - start;
  }
  p->forward_done = false;
  *finite = gradients_finite(p) && !forward_has_nan(p);
  return MPTL_OK;
}

mptl_status mptl_program_step(mptl_program *p, const float *images, const int32_t *labels, int n, uint32_t step,
                              const mptl_update *update, mptl_result *result) {
  bool finite;
  MPTL_TRY(mptl_program_forward(p, images, labels, n, step, result));
  MPTL_TRY(mptl_program_backward(p, update->loss_scale, &finite));
  result->applied = finite || !update->skip_nonfinite;
  double start = now();
  mptl_status status = result->applied ? mptl_model_update(p->model, update) : MPTL_OK;
  p->update_seconds = now() - start;
  return status;
}
