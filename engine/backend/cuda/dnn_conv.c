/* A pass of a convolution: a plan and the addresses on which it runs. */
#include "backend/cuda/dnn_conv.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cuda/dnn_cache.h"
#include "backend/cuda/dnn_graph.h"
#include "backend/cuda/inspect.h"

struct mptl_cuda_conv {
  char name[sizeof(mptl_shape_name) + 64];
  cudnnHandle_t handle;
  const mptl_dnn_plan *plan;
  cudnnBackendDescriptor_t pack;   /* the addresses of the last run, NULL before the first */
  void *at[MPTL_DNN_OPERANDS + 1]; /* pack's addresses: operands and result by id - 1, workspace */
};

mptl_status mptl_cuda_conv_create(mptl_cuda_conv **conv, mptl_cuda_dnn *dnn,
                                  const mptl_conv_shape *shape, mptl_pass pass,
                                  mptl_cuda_type first, mptl_cuda_type second,
                                  size_t workspace_limit) {
  *conv = NULL;
  MPTL_TRY(mptl_conv_check(shape));
  mptl_cuda_conv *c = calloc(1, sizeof *c);
  if (c == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory", mptl_conv_name(shape).text);
  mptl_dnn_cache *plans = mptl_cuda_dnn_plans(dnn);
  c->handle = plans->device->handle;
  mptl_cuda_product_name(c->name, sizeof c->name, mptl_conv_name(shape).text, pass, first, second);
  const mptl_dnn_key key = {
      *shape, pass, first, second,
      mptl_cuda_workspace_limit(shape, &plans->device->traits, workspace_limit)};
  mptl_status status = mptl_dnn_find_plan(&c->plan, plans, &key);
  if (status == MPTL_OK)
    *conv = c;
  else
    status = mptl_fail_in(status, "%s", c->name), mptl_cuda_conv_destroy(c);
  return status;
}

void mptl_cuda_conv_destroy(mptl_cuda_conv *conv) {
  if (conv == NULL) return;
  if (conv->pack != NULL) cudnnBackendDestroyDescriptor(conv->pack);
  free(conv);
}

size_t mptl_cuda_conv_workspace_bytes(const mptl_cuda_conv *conv) {
  return conv->plan->workspace_bytes;
}
const char *mptl_cuda_conv_describe(const mptl_cuda_conv *conv) { return conv->name; }
const char *mptl_cuda_conv_engine(const mptl_cuda_conv *conv) { return conv->plan->engine; }
const char *mptl_cuda_conv_wrong(const mptl_cuda_conv *conv) { return conv->plan->wrong; }

static mptl_status bind(mptl_cuda_conv *conv, void *const at[MPTL_DNN_OPERANDS + 1]) {
  if (conv->pack != NULL) cudnnBackendDestroyDescriptor(conv->pack);
  conv->pack = NULL;
  MPTL_TRY(mptl_dnn_make_pack(&conv->pack, at));
  memcpy(conv->at, at, sizeof conv->at);
  return MPTL_OK;
}

mptl_status mptl_cuda_conv_run(mptl_cuda_conv *conv, float *result, const void *first,
                               const void *second, void *workspace) {
  void *const at[MPTL_DNN_OPERANDS + 1] = {(void *)first, (void *)second, result, workspace};
  if (conv->handle == NULL)
    return mptl_fail(MPTL_EINVAL, "%s: made for a device that is only described", conv->name);
  if (workspace == NULL && conv->plan->workspace_bytes > 0)
    return mptl_fail(MPTL_EINVAL, "%s: no workspace given, %zu bytes are needed", conv->name,
                     conv->plan->workspace_bytes);
  mptl_status status = MPTL_OK;
  if (conv->pack == NULL || memcmp(conv->at, at, sizeof at) != 0) status = bind(conv, at);
  if (status == MPTL_OK)
    status =
        mptl_dnn_status(cudnnBackendExecute(conv->handle, conv->plan->plan, conv->pack), "run");
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "%s", conv->name);
}
