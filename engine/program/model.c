/* Models: the parameters of a graph, their gradients and optimizer state, and the update. */
#include <math.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "mptl/program.h"
#include "program/model.h"

/* The initial value of element i: a normal number from two random words (Box and Muller, 1958), a
 * uniform one from one word. */
static float draw(mptl_init init, mptl_key key, uint64_t i) {
  if (init.kind == MPTL_INIT_CONSTANT) return (float)init.a;
  double u = ((double)mptl_random_u32(key, i, 0) + 0.5) * 0x1p-32;
  if (init.kind == MPTL_INIT_UNIFORM) return (float)(init.a + (init.b - init.a) * u);
  double v = ((double)mptl_random_u32(key, i, 1) + 0.5) * 0x1p-32;
  return (float)(init.a + init.b * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

static mptl_status initialise(mptl_tensor *t, mptl_init init, mptl_key key) {
  enum { PIECE = 4096 };
  float values[PIECE];
  size_t n = mptl_tensor_numel(t);
  for (size_t at = 0; at < n; at += PIECE) {
    size_t count = n - at < PIECE ? n - at : PIECE;
    for (size_t i = 0; i < count; i++) values[i] = draw(init, key, at + i);
    MPTL_TRY(mptl_tensor_write(t, at, count, values));
  }
  return MPTL_OK;
}

static bool allocate(mptl_model *m, size_t n) {
  m->params = calloc(n, sizeof *m->params);
  m->grads = calloc(n, sizeof *m->grads);
  m->groups = calloc(n, sizeof *m->groups);
  bool all = m->params && m->grads && m->groups;
  for (int k = 0; k < m->optimizer->n_states; k++) {
    m->states[k] = calloc(n, sizeof *m->states[k]);
    all = all && m->states[k];
  }
  return all;
}

mptl_status mptl_model_create(mptl_model **model, const mptl_graph *graph,
                              const mptl_model_options *options) {
  mptl_model *m = calloc(1, sizeof *m);
  if (m == NULL) return mptl_fail(MPTL_ENOMEM, "model: no memory");
  m->graph = graph;
  m->device = mptl_device_retain(options->device);
  m->optimizer =
      options->optimizer != NULL ? options->optimizer : mptl_optimizer_at(MPTL_OPTIMIZER_SGD);
  mptl_status status = allocate(m, (size_t)graph->n_params + 1)
                           ? MPTL_OK
                           : mptl_fail(MPTL_ENOMEM, "model: no memory");
  for (int i = 0; i < graph->n_params && status == MPTL_OK; i++) {
    const mptl_param *p = &graph->params[i];
    status = mptl_tensor_create_in(&m->params[i], m->device, p->ndim, p->dims);
    if (status == MPTL_OK)
      status = initialise(m->params[i], p->init,
                          mptl_make_key(options->seed, MPTL_STREAM_INIT, (uint32_t)i, 0));
  }
  if (status != MPTL_OK) {
    mptl_model_destroy(m);
    return status;
  }
  *model = m;
  return MPTL_OK;
}

mptl_status mptl_model_set_group(mptl_model *m, int param, int group) {
  if (param < 0 || param >= m->graph->n_params)
    return mptl_fail(MPTL_EINVAL, "parameter %d: the model has 0 to %d", param,
                     m->graph->n_params - 1);
  if (group < 0 || group >= MPTL_PARAMETER_GROUPS)
    return mptl_fail(MPTL_EINVAL, "%s: parameter group %d, accepted are 0 to %d",
                     m->graph->params[param].name, group, MPTL_PARAMETER_GROUPS - 1);
  if (m->trained != NULL)
    return mptl_fail(MPTL_EINVAL,
                     "%s: parameter groups are set before the first training program is made",
                     m->graph->params[param].name);
  m->groups[param] = group;
  return MPTL_OK;
}

static mptl_status list_trained(mptl_model *m) {
  mptl_trained *list = calloc((size_t)m->graph->n_params + 1, sizeof *list);
  if (list == NULL) return mptl_fail(MPTL_ENOMEM, "model: no memory");
  size_t count = 0;
  for (int i = 0; i < m->graph->n_params; i++) {
    if (m->grads[i] == NULL) continue;
    mptl_trained *t = &list[count++];
    *t = (mptl_trained){.p = m->params[i]->data,
                        .g = m->grads[i]->data,
                        .n = m->graph->params[i].numel,
                        .group = m->groups[i]};
    for (int k = 0; k < m->optimizer->n_states; k++) t->state[k] = m->states[k][i]->data;
  }
  mptl_status status = m->device->backend->list_create(m->device, &m->trained, list, count);
  free(list);
  return status;
}

mptl_status mptl_model_prepare_training(mptl_model *m) {
  for (int i = 0; i < m->graph->n_params; i++) {
    const mptl_param *p = &m->graph->params[i];
    if (p->buffer || m->grads[i] != NULL) continue;
    MPTL_TRY(mptl_tensor_create_in(&m->grads[i], m->device, p->ndim, p->dims));
    for (int k = 0; k < m->optimizer->n_states; k++)
      MPTL_TRY(mptl_tensor_create_in(&m->states[k][i], m->device, p->ndim, p->dims));
  }
  return m->trained == NULL ? list_trained(m) : MPTL_OK;
}

static void release(mptl_tensor **tensors, int n) {
  for (int i = 0; tensors != NULL && i < n; i++) mptl_tensor_release(tensors[i]);
  free(tensors);
}

void mptl_model_destroy(mptl_model *m) {
  if (m == NULL) return;
  m->device->backend->list_destroy(m->device, m->trained);
  release(m->params, m->graph->n_params);
  release(m->grads, m->graph->n_params);
  for (int k = 0; k < MPTL_MAX_STATES; k++) release(m->states[k], m->graph->n_params);
  mptl_device_close(m->device);
  free(m->groups);
  free(m);
}

/* ---- The update ---- */

mptl_update mptl_update_default(const mptl_optimizer *o) {
  mptl_update u = {.n_groups = 1, .loss_scale = 1, .skip_nonfinite = true};
  for (int i = 0; i < o->n_settings; i++) u.settings[0][i] = o->settings[i].usual;
  return u;
}

mptl_status mptl_update_factors(mptl_factors *factors, const mptl_optimizer *o,
                                const mptl_update *u, int64_t updates) {
  if (!(u->loss_scale > 0))
    return mptl_fail(MPTL_EINVAL, "loss scale: %g, must be above 0", u->loss_scale);
  if (u->n_groups < 1 || u->n_groups > MPTL_PARAMETER_GROUPS)
    return mptl_fail(MPTL_EINVAL, "update: settings for %d parameter groups, accepted are 1 to %d",
                     u->n_groups, MPTL_PARAMETER_GROUPS);
  for (int i = 0; i < u->n_groups; i++) {
    MPTL_TRY(mptl_optimizer_check(o, u->settings[i]));
    factors[i] = (mptl_factors){.gradient = (float)(1.0 / u->loss_scale)};
    o->factors(factors[i].of, u->settings[i], updates);
  }
  return MPTL_OK;
}

/* Clips the gradients to the norm clip_norm, as torch.nn.utils.clip_grad_norm_ does: scales the
 * factors, not the arrays. Sets the model's gradient_norm. */
static mptl_status clip(mptl_model *m, mptl_factors *factors, const mptl_update *u) {
  double squares;
  if (!(u->clip_norm > 0)) return MPTL_OK;
  MPTL_TRY(m->device->backend->sum_squares(m->device, &squares, m->trained));
  m->gradient_norm = sqrt(squares) / u->loss_scale;
  double left = u->clip_norm / (m->gradient_norm + 1e-6);
  for (int i = 0; i < u->n_groups && !(left >= 1); i++)
    factors[i].gradient = (float)(left / u->loss_scale);
  return MPTL_OK;
}

mptl_status mptl_model_update(mptl_model *m, const mptl_update *u) {
  mptl_factors factors[MPTL_PARAMETER_GROUPS];
  if (m->trained == NULL)
    return mptl_fail(MPTL_EINVAL,
                     "update: the model has no gradients, run a training program first");
  MPTL_TRY(mptl_update_factors(factors, m->optimizer, u, m->updates));
  for (int i = 0; i < m->graph->n_params; i++)
    if (m->groups[i] >= u->n_groups)
      return mptl_fail(MPTL_EINVAL, "update: no settings for parameter group %d, which %s is in",
                       m->groups[i], m->graph->params[i].name);
  MPTL_TRY(clip(m, factors, u));
  MPTL_TRY(
      m->device->backend->update(m->device, m->trained, m->optimizer->id, factors, u->n_groups));
  m->updates++;
  return MPTL_OK;
}
