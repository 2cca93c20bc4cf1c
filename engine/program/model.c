/* A model: the parameters of a graph, what training keeps beside them, and the update. */
#include <math.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "mptl/program.h"
#include "program/model.h"

/* Normal deviates by Box and Muller from two words per element, uniform ones from 24 bits of one. */
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

mptl_status mptl_model_create(mptl_model **model, const mptl_graph *graph, uint64_t seed, mptl_device *device) {
  size_t n = (size_t)graph->n_params + 1;
  mptl_model *m = calloc(1, sizeof *m);
  if (m != NULL) {
    m->graph = graph;
    m->device = mptl_device_retain(device);
    m->params = calloc(n, sizeof *m->params);
    m->grads = calloc(n, sizeof *m->grads);
    m->momenta = calloc(n, sizeof *m->momenta);
  }
  mptl_status status = m && m->params && m->grads && m->momenta ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "model: no memory");
  for (int i = 0; i < graph->n_params && status == MPTL_OK; i++) {
    const mptl_param *p = &graph->params[i];
    status = mptl_tensor_create_in(&m->params[i], device, p->ndim, p->dims);
    if (status == MPTL_OK) status = initialise(m->params[i], p->init, mptl_make_key(seed, MPTL_STREAM_INIT, (uint32_t)i, 0));
  }
  if (status != MPTL_OK) {
    mptl_model_destroy(m);
    return status;
  }
  *model = m;
  return MPTL_OK;
}

static mptl_status list_trained(mptl_model *m) {
  mptl_trained *list = calloc((size_t)m->graph->n_params + 1, sizeof *list);
  if (list == NULL) return mptl_fail(MPTL_ENOMEM, "model: no memory");
  size_t count = 0;
  for (int i = 0; i < m->graph->n_params; i++)
    if (m->grads[i] != NULL)
      list[count++] = (mptl_trained){
          .p = m->params[i]->data, .buf = m->momenta[i]->data, .g = m->grads[i]->data, .n = m->graph->params[i].numel};
  mptl_status status = m->device->backend->list_create(m->device, &m->trained, list, count);
  free(list);
  return status;
}

mptl_status mptl_model_prepare_training(mptl_model *m) {
  for (int i = 0; i < m->graph->n_params; i++) {
    const mptl_param *p = &m->graph->params[i];
    if (p->buffer || m->grads[i] != NULL) continue;
    MPTL_TRY(mptl_tensor_create_in(&m->grads[i], m->device, p->ndim, p->dims));
    MPTL_TRY(mptl_tensor_create_in(&m->momenta[i], m->device, p->ndim, p->dims));
  }
  return m->trained == NULL ? list_trained(m) : MPTL_OK;
}

void mptl_model_destroy(mptl_model *m) {
  if (m == NULL) return;
  for (int i = 0; i < m->graph->n_params; i++) {
    if (m->params) mptl_tensor_release(m->params[i]);
    if (m->grads) mptl_tensor_release(m->grads[i]);
    if (m->momenta) mptl_tensor_release(m->momenta[i]);
  }
  m->device->backend->list_destroy(m->device, m->trained);
  mptl_device_close(m->device);
  free(m->params);
  free(m->grads);
  free(m->momenta);
  free(m);
}

mptl_status mptl_model_update(mptl_model *m, const mptl_update *u) {
  if (!(u->loss_scale > 0)) return mptl_fail(MPTL_EINVAL, "loss scale: %g, must be above 0", u->loss_scale);
  mptl_sgd sgd = {.lr = (float)u->lr,
                  .momentum = (float)u->momentum,
                  .weight_decay = (float)u->weight_decay,
                  .inv_scale = (float)(1.0 / u->loss_scale),
                  .first = m->updates == 0};
  if (m->trained == NULL) return mptl_fail(MPTL_EINVAL, "update: the model has no gradients, run a training program first");
  MPTL_TRY(m->device->backend->sgd(m->device, m->trained, &sgd));
  m->updates++;
  return MPTL_OK;
}
