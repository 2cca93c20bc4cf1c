/* The CUDA backend: its table of operators and its whole-array functions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/products.h"
#include "backend/plugin.h"

static const mptl_cuda_kind_row *const table[] = {
    &mptl_cuda_conv2d,          &mptl_cuda_linear_layer,   &mptl_cuda_avgpool,     &mptl_cuda_maxpool,  &mptl_cuda_mean,
    &mptl_cuda_concat_channels, &mptl_cuda_slice_channels, &mptl_cuda_log_softmax, &mptl_cuda_nll_loss,
};

/* The row of a kind; NULL for pointwise ones. */
static const mptl_cuda_kind_row *find(const mptl_call *call) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (strcmp(table[i]->kind, call->op->kind->name) == 0) return table[i];
  return NULL;
}

static mptl_status op_create(mptl_device *device, mptl_call *call) {
  (void)device;
  const mptl_cuda_kind_row *row = find(call);
  if (row == NULL && !mptl_cuda_is_pointwise(call))
    return mptl_fail(MPTL_EUNSUPPORTED, "%s: the CUDA backend does not have this operator", call->op->kind->name);
  return row != NULL && row->create ? row->create(call) : MPTL_OK;
}

static void op_destroy(mptl_device *device, mptl_call *call) {
  (void)device;
  const mptl_cuda_kind_row *row = find(call);
  if (row != NULL && row->destroy) row->destroy(call);
}

/* Mean and inverse standard deviation by channel. */
static size_t op_saved_floats(mptl_device *device, const mptl_call *call) {
  (void)device;
  return strcmp(call->op->kind->name, "batchnorm2d") == 0 ? 2 * (size_t)mptl_cuda_out_shape(call).c : 0;
}

static mptl_status prepare(mptl_device *device, mptl_stage *stage, size_t *scratch_bytes) {
  mptl_call *c = stage->calls[0];
  const mptl_cuda_kind_row *row = find(c);
  *scratch_bytes = 0;
  if (row == NULL) return mptl_cuda_prepare_stage(mptl_cuda(device), stage, scratch_bytes);
  if (row->prepare) MPTL_TRY(mptl_in_operator(row->prepare(c, scratch_bytes), c->op));
  if (*scratch_bytes > 0) *scratch_bytes += MPTL_CUDA_ALIGN - 64; /* see run */
  return MPTL_OK;
}

static mptl_status run(mptl_cuda_device *d, mptl_stage *stage, bool is_forward) {
  mptl_call *c = stage->calls[0];
  const mptl_cuda_kind_row *row = find(c);
  if (row == NULL) return mptl_cuda_run_stage(d, stage, is_forward);
  c->scratch = (void *)mptl_cuda_aligned((uintptr_t)stage->scratch); /* programs align to 64 bytes, the libraries want more */
  mptl_status status = is_forward ? row->forward(c) : row->backward(c);
  if (status == MPTL_OK) status = mptl_cuda_settle(d, "the libraries' work"); /* of which there are no launches to wait for */
  return mptl_in_operator(status, c->op);
}

static mptl_status forward(mptl_device *device, mptl_stage *stage) {
  MPTL_TRY(mptl_cuda_fit(mptl_cuda(device), stage, true, run));
  return run(mptl_cuda(device), stage, true);
}

static mptl_status backward(mptl_device *device, mptl_stage *stage) {
  MPTL_TRY(mptl_cuda_fit(mptl_cuda(device), stage, false, run));
  return run(mptl_cuda(device), stage, false);
}

/* ---- Whole arrays ---- */

static mptl_status round_arrays(mptl_device *device, const mptl_rounding *arrays, size_t count) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_rounding list[MPTL_CUDA_ROUNDINGS];
  for (size_t at = 0; at < count; at += MPTL_CUDA_ROUNDINGS) {
    size_t n = count - at < MPTL_CUDA_ROUNDINGS ? count - at : MPTL_CUDA_ROUNDINGS;
    for (size_t i = 0; i < n; i++) list[i] = mptl_cuda_rounding_of(d, &arrays[at + i]);
    MPTL_TRY(MPTL_CUDA_LAUNCH(d, mptl_cuda_round_list(list, n, d->stream)));
  }
  return MPTL_OK;
}

static mptl_status fill(mptl_device *device, const mptl_sink *s, float value, size_t n) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_sink sink = mptl_cuda_sink_of(d, s);
  return MPTL_CUDA_LAUNCH(d, mptl_cuda_write_constant(&sink, value, n, d->stream));
}

/* ---- The update: one launch for all parameters, which are listed in the device's memory ---- */

struct mptl_trained_list {
  mptl_cuda_param *params; /* the device's */
  size_t count, chunks;
};

static void list_destroy(mptl_device *device, mptl_trained_list *list) {
  if (list == NULL) return;
  mptl_cuda_free(device, list->params);
  free(list);
}

static mptl_status list_create(mptl_device *device, mptl_trained_list **list, const mptl_trained *params, size_t count) {
  const mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_param *all = calloc(count + 1, sizeof *all);
  mptl_trained_list *l = calloc(1, sizeof *l);
  if (l != NULL) l->params = mptl_cuda_alloc(device, count * sizeof *all);
  mptl_status status = all && l && l->params ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "model: no memory");
  if (status == MPTL_OK) {
    for (size_t i = 0; i < count; i++)
      all[i] = (mptl_cuda_param){.p = mptl_cuda_address(d, params[i].p),
                                 .buf = mptl_cuda_address(d, params[i].buf),
                                 .g = mptl_cuda_address(d, params[i].g),
                                 .n = params[i].n};
    l->count = count;
    l->chunks = mptl_cuda_plan_params(all, count);
    status = mptl_cuda_upload(device, l->params, all, count * sizeof *all);
  }
  free(all);
  if (status == MPTL_OK)
    *list = l;
  else
    list_destroy(device, l);
  return status;
}

static mptl_status find_nonfinite(mptl_device *device, uint32_t *flag, const mptl_trained_list *list) {
  mptl_cuda_device *d = mptl_cuda(device);
  return MPTL_CUDA_LAUNCH(
      d, mptl_cuda_find_nonfinite_gradients(mptl_cuda_address(d, flag), list->params, list->count, list->chunks, d->stream));
}

static mptl_status sgd(mptl_device *device, const mptl_trained_list *list, const mptl_sgd *settings) {
  mptl_cuda_device *d = mptl_cuda(device);
  return MPTL_CUDA_LAUNCH(d, mptl_cuda_sgd(list->params, list->count, list->chunks, *settings, NULL, d->stream));
}

/* ---- The plug-in ---- */

static void close_device(mptl_device *device) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_free(device, d->found);
  mptl_cuda_products_close(d);
  mptl_cuda_runtime_close(d);
  free(d);
}

static const mptl_backend backend = {
    .max_stage_ops = MPTL_CUDA_STAGE_OPS,
    .rounds_weights = true,
    .close = close_device,
    .alloc = mptl_cuda_alloc,
    .free = mptl_cuda_free,
    .upload = mptl_cuda_upload,
    .download = mptl_cuda_download,
    .zero = mptl_cuda_zero,
    .synchronize = mptl_cuda_synchronize,
    .host_alloc = mptl_cuda_host_alloc,
    .host_free = mptl_cuda_host_free,
    .lend = mptl_cuda_lend,
    .op_create = op_create,
    .op_destroy = op_destroy,
    .op_saved_floats = op_saved_floats,
    .expect = mptl_cuda_expect,
    .prepare = prepare,
    .compute = mptl_cuda_compute,
    .product = mptl_cuda_product_way,
    .forward = forward,
    .backward = backward,
    .round = round_arrays,
    .fill = fill,
    .max_abs = mptl_cuda_largest,
    .list_create = list_create,
    .list_destroy = list_destroy,
    .find_nonfinite = find_nonfinite,
    .sgd = sgd,
    .measure = mptl_cuda_measure,
};

static mptl_status open_device(mptl_device **opened, int number) {
  mptl_cuda_device *d = calloc(1, sizeof *d);
  if (d == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  mptl_status status = mptl_cuda_runtime_open(d, number);
  if (status != MPTL_OK) {
    mptl_cuda_runtime_close(d);
    free(d);
    return status;
  }
  d->base.backend = &backend;
  d->base.threads = 1; /* the host only launches */
  d->base.users = 1;
  snprintf(d->base.name, sizeof d->base.name, "cuda:%d", number);
  *opened = &d->base;
  return MPTL_OK;
}

const mptl_plugin mptl_plugin_exported = {.abi = MPTL_PLUGIN_ABI,
                                          .backend_bytes = sizeof(mptl_backend),
                                          .call_bytes = sizeof(mptl_call),
                                          .libraries = mptl_cuda_products_libraries,
                                          .count = mptl_cuda_runtime_count,
                                          .describe = mptl_cuda_runtime_describe,
                                          .open = open_device};
