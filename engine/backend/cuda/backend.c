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

static mptl_status op_create(mptl_call *call) {
  const mptl_cuda_kind_row *row = find(call);
  if (row == NULL && !mptl_cuda_is_pointwise(call))
    return mptl_fail(MPTL_EUNSUPPORTED, "%s: the CUDA backend does not have this operator", call->op->kind->name);
  return row != NULL && row->create ? row->create(call) : MPTL_OK;
}

static void op_destroy(mptl_call *call) {
  const mptl_cuda_kind_row *row = find(call);
  if (row != NULL && row->destroy) row->destroy(call);
}

/* Mean and inverse standard deviation by channel. */
static size_t op_saved_floats(const mptl_call *call) {
  return strcmp(call->op->kind->name, "batchnorm2d") == 0 ? 2 * (size_t)mptl_cuda_out_shape(call).c : 0;
}

static mptl_status prepare(mptl_stage *stage, size_t *scratch_bytes) {
  mptl_call *c = stage->calls[0];
  const mptl_cuda_kind_row *row = find(c);
  *scratch_bytes = 0;
  if (row == NULL) return mptl_cuda_prepare_stage(stage, scratch_bytes);
  if (row->prepare) MPTL_TRY(mptl_in_operator(row->prepare(c, scratch_bytes), c->op));
  if (*scratch_bytes > 0) *scratch_bytes += MPTL_CUDA_ALIGN - 64; /* see run */
  return MPTL_OK;
}

static mptl_status run(mptl_stage *stage, bool is_forward) {
  mptl_call *c = stage->calls[0];
  const mptl_cuda_kind_row *row = find(c);
  if (row == NULL) return mptl_cuda_run_stage(stage, is_forward);
  c->scratch = (void *)mptl_cuda_aligned((uintptr_t)stage->scratch); /* programs align to 64 bytes, the libraries want more */
  mptl_status status = is_forward ? row->forward(c) : row->backward(c);
  if (status == MPTL_OK)
    status = mptl_cuda_runtime_settle("the libraries' work"); /* of which there are no launches to wait for */
  return mptl_in_operator(status, c->op);
}

static mptl_status forward(mptl_stage *stage) {
  MPTL_TRY(mptl_cuda_fit(stage, true, run));
  return run(stage, true);
}

static mptl_status backward(mptl_stage *stage) {
  MPTL_TRY(mptl_cuda_fit(stage, false, run));
  return run(stage, false);
}

/* ---- Whole arrays ---- */

static mptl_cuda_stream stream(void) { return mptl_cuda_runtime_stream(); }

static mptl_status round_arrays(const mptl_rounding *arrays, size_t count) {
  mptl_cuda_rounding list[MPTL_CUDA_ROUNDINGS];
  for (size_t at = 0; at < count; at += MPTL_CUDA_ROUNDINGS) {
    size_t n = count - at < MPTL_CUDA_ROUNDINGS ? count - at : MPTL_CUDA_ROUNDINGS;
    for (size_t i = 0; i < n; i++) list[i] = mptl_cuda_rounding_of(&arrays[at + i]);
    MPTL_TRY(MPTL_CUDA_LAUNCH(mptl_cuda_round_list(list, n, stream())));
  }
  return MPTL_OK;
}

static mptl_status fill(const mptl_sink *s, float value, size_t n) {
  mptl_cuda_sink sink = mptl_cuda_sink_of(s);
  return MPTL_CUDA_LAUNCH(mptl_cuda_write_constant(&sink, value, n, stream()));
}

/* ---- The update: one launch for all parameters, which are listed in the device's memory ---- */

struct mptl_trained_list {
  mptl_cuda_param *params; /* the device's */
  size_t count, chunks;
};

static void list_destroy(mptl_trained_list *list) {
  if (list == NULL) return;
  mptl_cuda_memory.free(list->params);
  free(list);
}

static mptl_status list_create(mptl_trained_list **list, const mptl_trained *params, size_t count) {
  mptl_cuda_param *all = calloc(count + 1, sizeof *all);
  mptl_trained_list *l = calloc(1, sizeof *l);
  if (l != NULL) l->params = mptl_cuda_memory.alloc(count * sizeof *all);
  mptl_status status = all && l && l->params ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "model: no memory");
  if (status == MPTL_OK) {
    for (size_t i = 0; i < count; i++)
      all[i] = (mptl_cuda_param){.p = mptl_cuda_address(params[i].p),
                                 .buf = mptl_cuda_address(params[i].buf),
                                 .g = mptl_cuda_address(params[i].g),
                                 .n = params[i].n};
    l->count = count;
    l->chunks = mptl_cuda_plan_params(all, count);
    status = mptl_cuda_memory.upload(l->params, all, count * sizeof *all);
  }
  free(all);
  if (status == MPTL_OK)
    *list = l;
  else
    list_destroy(l);
  return status;
}

static mptl_status find_nonfinite(uint32_t *flag, const mptl_trained_list *list) {
  return MPTL_CUDA_LAUNCH(
      mptl_cuda_find_nonfinite_gradients(mptl_cuda_address(flag), list->params, list->count, list->chunks, stream()));
}

static mptl_status sgd(const mptl_trained_list *list, const mptl_sgd *settings) {
  return MPTL_CUDA_LAUNCH(mptl_cuda_sgd(list->params, list->count, list->chunks, *settings, NULL, stream()));
}

/* ---- The plug-in ---- */

/* The host's threads do nothing here. */
static int threads(void) { return 1; }
static void use_threads(int n) { (void)n; }

static char name[16];
static mptl_backend backend = {
    .name = name,
    .memory = &mptl_cuda_memory,
    .stage_ops = MPTL_CUDA_STAGE_OPS,
    .rounds_weights = true,
    .threads = threads,
    .use_threads = use_threads,
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

static mptl_status open_device(const mptl_backend **opened, int device) {
  MPTL_TRY(mptl_cuda_runtime_open(device));
  snprintf(name, sizeof name, "cuda:%d", device);
  *opened = &backend;
  return MPTL_OK;
}

const mptl_plugin mptl_plugin_exported = {.abi = MPTL_PLUGIN_ABI,
                                          .backend_bytes = sizeof(mptl_backend),
                                          .call_bytes = sizeof(mptl_call),
                                          .libraries = mptl_cuda_products_libraries,
                                          .count = mptl_cuda_runtime_count,
                                          .describe = mptl_cuda_runtime_describe,
                                          .open = open_device};
