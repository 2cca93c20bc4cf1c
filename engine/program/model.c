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

static void initialise(mptl_tensor *t, mptl_init init, mptl_key key) {
  size_t n = mptl_tensor_numel(t);
  for (size_t i = 0; i < n; i++) t->data[i] = draw(init, key, i);
}

mptl_status mptl_model_create(mptl_model **model, const mptl_graph *graph, uint64_t seed) {
  size_t n = (size_t)graph->n_params + 1;
  mptl_model *m = calloc(1, sizeof *m);
  if (m != NULL) {
    m->graph = graph;
    m->params = calloc(n, sizeof *m->params);
    m->grads = calloc(n, sizeof *m->grads);
    m->momenta = calloc(n, sizeof *m->momenta);
  }
  mptl_status status = m && m->params && m->grads && m->momenta ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "model: no memory");
  for (int i = 0; i < graph->n_params && status == MPTL_OK; i++) {
    const mptl_param *p = &graph->params[i];
    status = mptl_tensor_create(&m->params[i], p->ndim, p->dims);
    if (status == MPTL_OK) initialise(m->params[i], p->init, mptl_make_key(seed, MPTL_STREAM_INIT, (uint32_t)i, 0));
  }
  if (status != MPTL_OK) {
    mptl_model_destroy(m);
    return status;
  }
  *model = m;
  return MPTL_OK;
}

mptl_status mptl_model_prepare_training(mptl_model *m) {
  for (int i = 0; i < m->graph->n_params; i++) {
    const mptl_param *p = &m->graph->params[i];
    if (p->buffer || m->grads[i] != NULL) continue;
    MPTL_TRY(mptl_tensor_create(&m->grads[i], p->ndim, p->dims));
    MPTL_TRY(mptl_tensor_create(&m->momenta[i], p->ndim, p->dims));
  }
  return MPTL_OK;
}

void mptl_model_destroy(mptl_model *m) {
  if (m == NULL) return;
  for (int i = 0; i < m->graph->n_params; i++) {
    if (m->params) mptl_tensor_release(m->params[i]);
    if (m->grads) mptl_tensor_release(m->grads[i]);
    if (m->momenta) mptl_tensor_release(m->momenta[i]);
  }
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
  for (int i = 0; i < m->graph->n_params; i++) {
    if (m->graph->params[i].buffer) continue;
    if (m->grads[i] == NULL) return mptl_fail(MPTL_EINVAL, "update: the model has no gradients, run a training program first");
    mptl_backend_cpu.sgd(m->params[i]->data, m->momenta[i]->data, m->grads[i]->data, m->graph->params[i].numel, &sgd);
  }
  m->updates++;
  return MPTL_OK;
}
