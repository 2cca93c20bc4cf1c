/* The CUDA backend: the table of operators, and functions of whole arrays. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/cuda.h"
#include "backend/cuda/products.h"
#include "backend/plugin.h"

#define TABLE_ROW(name, NAME) [MPTL_OP_##NAME] = &mptl_cuda_op_##name,
static const mptl_cuda_row *const table[MPTL_OP_IDS] = {MPTL_OPERATORS(TABLE_ROW)};
#undef TABLE_ROW

static const mptl_cuda_row *row(const mptl_op *op) { return table[op->kind->id]; }

/* In the host-built plug-in: ends the process if an address is not the device's. */
static void check_addresses(const mptl_call *c) {
  const mptl_cuda_device *d = mptl_cuda_of(c);
  mptl_cuda_address(d, c->out.data);
  mptl_cuda_address(d, c->dy.data);
  mptl_cuda_address(d, c->y.data);
  mptl_cuda_address(d, c->y.stats);
  mptl_cuda_address(d, c->y.exponents);
  for (int k = 0; k < c->op->n_in || k == 0; k++) mptl_cuda_address(d, c->in[k].data);
  for (int k = 0; k < c->op->n_in; k++) {
    mptl_cuda_address(d, c->dx[k].data);
    mptl_cuda_address(d, c->dx[k].stats);
    mptl_cuda_address(d, c->dx[k].exponents);
  }
  for (int k = 0; k < c->op->n_param; k++) {
    mptl_cuda_address(d, c->theta[k]);
    mptl_cuda_address(d, c->buffers[k]);
    mptl_cuda_address(d, c->dtheta[k]);
  }
  mptl_cuda_address(d, c->weights.src);
  mptl_cuda_address(d, c->weights.stats);
  mptl_cuda_address(d, c->weights.exponents);
  mptl_cuda_address(d, c->saved);
  mptl_cuda_address(d, c->scratch);
  mptl_cuda_address(d, c->targets.labels);
  mptl_cuda_address(d, c->targets.values);
  mptl_cuda_address(d, c->loss);
}

void mptl_cuda_call_of(mptl_call *call, const mptl_member *member, const mptl_step *step,
                       void *scratch) {
  mptl_call_of(call, member, step, scratch);
  check_addresses(call);
}

static mptl_status op_create(mptl_device *device, void **state, const mptl_operator *op) {
  mptl_call call;
  (void)device;
  *state = NULL;
  mptl_call_of(&call, &(mptl_member){.is = op}, NULL, NULL);
  return row(op->op)->create ? row(op->op)->create(state, &call) : MPTL_OK;
}

static void op_destroy(mptl_device *device, const mptl_operator *op) {
  (void)device;
  if (row(op->op)->destroy) row(op->op)->destroy(op->state);
}

static mptl_status prepare(mptl_device *device, const mptl_stage *stage, size_t *scratch_bytes) {
  mptl_call call;
  const mptl_op *op = stage->members[0].is->op;
  (void)device;
  *scratch_bytes = 0;
  if (row(op)->pointwise) return mptl_cuda_prepare_stage(stage, scratch_bytes);
  mptl_call_of(&call, &stage->members[0], NULL, NULL);
  return row(op)->prepare ? mptl_in_operator(row(op)->prepare(&call, scratch_bytes), op) : MPTL_OK;
}

mptl_status mptl_cuda_run(mptl_cuda_device *d, const mptl_stage *stage, const mptl_step *step,
                          bool forward, int ranges_of, mptl_round_stats *found) {
  mptl_call call;
  const mptl_op *op = stage->members[0].is->op;
  if (row(op)->pointwise) return mptl_cuda_run_stage(d, stage, step, forward, ranges_of, found);
  mptl_cuda_call_of(&call, &stage->members[0], step, stage->scratch);
  if (ranges_of >= 0) mptl_cuda_find_ranges_of(&call, forward, found);
  mptl_status status = forward ? row(op)->forward(&call) : row(op)->backward(&call);
  /* MPTL_CUDA_LAUNCH does not wait for the libraries' work. */
  if (status == MPTL_OK) status = mptl_cuda_settle(d, "the libraries' work");
  return mptl_in_operator(status, op);
}

static mptl_status run(mptl_device *device, const mptl_stage *stage, const mptl_step *step,
                       bool forward) {
  return mptl_cuda_run(mptl_cuda(device), stage, step, forward, -1, NULL);
}

/* ---- Whole arrays ---- */

static mptl_status round_arrays(mptl_device *device, const mptl_rounding *arrays, size_t count) {
  mptl_cuda_device *d = mptl_cuda(device);
  for (size_t i = 0; i < count; i++) {
    mptl_cuda_address(d, arrays[i].dst);
    mptl_cuda_address(d, arrays[i].src);
    mptl_cuda_address(d, arrays[i].stats);
    mptl_cuda_address(d, arrays[i].exponents);
  }
  for (size_t at = 0; at < count; at += MPTL_CUDA_ROUNDINGS) {
    size_t n = count - at < MPTL_CUDA_ROUNDINGS ? count - at : MPTL_CUDA_ROUNDINGS;
    MPTL_TRY(MPTL_CUDA_LAUNCH(d, mptl_cuda_round_list(arrays + at, n, d->stream)));
  }
  return MPTL_OK;
}

static mptl_status fill(mptl_device *device, const mptl_sink *s, float value, size_t n) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_address(d, s->data);
  mptl_cuda_address(d, s->stats);
  mptl_cuda_address(d, s->exponents);
  return MPTL_CUDA_LAUNCH(d, mptl_cuda_write_constant(s, value, n, d->stream));
}

/* ---- The update: one launch for all parameters, from a list in device memory ---- */

struct mptl_trained_list {
  mptl_cuda_param *params; /* device memory */
  size_t count, chunks;
  double *squares; /* device memory, by chunk; NULL before the first sum_squares */
};

static void list_destroy(mptl_device *device, mptl_trained_list *list) {
  if (list == NULL) return;
  mptl_cuda_free(device, list->params);
  mptl_cuda_free(device, list->squares);
  free(list);
}

static mptl_status list_create(mptl_device *device, mptl_trained_list **list,
                               const mptl_trained *params, size_t count) {
  const mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_param *all = calloc(count + 1, sizeof *all);
  mptl_trained_list *l = calloc(1, sizeof *l);
  if (l != NULL) l->params = mptl_cuda_alloc(device, count * sizeof *all);
  mptl_status status = all && l && l->params ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "model: no memory");
  if (status == MPTL_OK) {
    for (size_t i = 0; i < count; i++) {
      all[i] = (mptl_cuda_param){.p = mptl_cuda_address(d, params[i].p),
                                 .g = mptl_cuda_address(d, params[i].g),
                                 .n = params[i].n,
                                 .group = params[i].group};
      for (int k = 0; k < MPTL_MAX_STATES; k++)
        all[i].state[k] = mptl_cuda_address(d, params[i].state[k]);
    }
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

static mptl_status find_nonfinite(mptl_device *device, uint32_t *flag,
                                  const mptl_trained_list *list) {
  mptl_cuda_device *d = mptl_cuda(device);
  return MPTL_CUDA_LAUNCH(
      d, mptl_cuda_find_nonfinite_gradients(mptl_cuda_address(d, flag), list->params, list->count,
                                            list->chunks, d->stream));
}

static mptl_status update(mptl_device *device, const mptl_trained_list *list, mptl_optimizer_id id,
                          const mptl_factors *factors, int groups) {
  mptl_cuda_device *d = mptl_cuda(device);
  return MPTL_CUDA_LAUNCH(d, mptl_cuda_update(id, list->params, list->count, list->chunks, factors,
                                              groups, NULL, d->stream));
}

/* Waits for the sums of the chunks, and adds them on the host. */
static mptl_status sum_squares(mptl_device *device, double *sum, mptl_trained_list *list) {
  mptl_cuda_device *d = mptl_cuda(device);
  double *chunks = malloc(list->chunks * sizeof *chunks + 1);
  if (list->squares == NULL) list->squares = mptl_cuda_alloc(device, list->chunks * sizeof *chunks);
  mptl_status status =
      chunks && list->squares ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "clipping: no memory");
  if (status == MPTL_OK)
    status = MPTL_CUDA_LAUNCH(d, mptl_cuda_sum_squares(list->squares, list->params, list->count,
                                                       list->chunks, d->stream));
  if (status == MPTL_OK)
    status = mptl_cuda_download(device, chunks, list->squares, list->chunks * sizeof *chunks);
  *sum = 0;
  for (size_t i = 0; status == MPTL_OK && i < list->chunks; i++) *sum += chunks[i];
  free(chunks);
  return status;
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
    .expect = mptl_cuda_expect,
    .prepare = prepare,
    .compute = mptl_cuda_compute,
    .product = mptl_cuda_product_way,
    .run = run,
    .find_ranges = mptl_cuda_find_ranges,
    .round = round_arrays,
    .fill = fill,
    .max_abs = mptl_cuda_largest,
    .list_create = list_create,
    .list_destroy = list_destroy,
    .find_nonfinite = find_nonfinite,
    .update = update,
    .sum_squares = sum_squares,
    .find_peaks = mptl_cuda_find_peaks,
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
