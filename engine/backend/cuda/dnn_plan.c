/* Execution plans. Their text is cuDNN's JSON representation. */
#include "backend/cuda/dnn_plan.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const what = "execution plan";

void mptl_dnn_plan_destroy(mptl_dnn_plan *plan) {
  if (plan->plan != NULL) cudnnBackendDestroyDescriptor(plan->plan);
  if (plan->config != NULL) cudnnBackendDestroyDescriptor(plan->config);
  free(plan->refusal);
  free(plan);
}

mptl_status mptl_dnn_begin_plan(cudnnBackendDescriptor_t *plan, const mptl_dnn_device *device) {
  MPTL_TRY(mptl_dnn_status(
      cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, plan), what));
  mptl_status status = MPTL_OK;
  if (device->handle != NULL)
    status = mptl_dnn_set(*plan, what, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                          &device->handle);
#if CUDNN_VERSION >= 90800
  if (device->handle == NULL)
    status = mptl_dnn_set_descriptor(*plan, what, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                     device->properties);
#endif
  if (status != MPTL_OK) cudnnBackendDestroyDescriptor(*plan);
  return status;
}

mptl_status mptl_dnn_end_plan(size_t *workspace_bytes, cudnnBackendDescriptor_t plan) {
  int64_t n = 0, bytes = 0;
  MPTL_TRY(mptl_dnn_finalize(plan, what));
  MPTL_TRY(mptl_dnn_status(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                    CUDNN_TYPE_INT64, 1, &n, &bytes),
                           what));
  *workspace_bytes = (size_t)bytes;
  return MPTL_OK;
}

mptl_status mptl_dnn_write_plan(mptl_dnn_text *text, const mptl_dnn_plan *plan) {
  const cudnnBackendAttributeName_t name = CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
  int64_t n = 0;
  MPTL_TRY(mptl_dnn_status(cudnnBackendGetAttribute(plan->plan, name, CUDNN_TYPE_CHAR, 0, &n, NULL),
                           what));
  char *bytes = n > 0 ? malloc((size_t)n) : NULL;
  if (bytes == NULL)
    return mptl_fail(MPTL_ENOMEM, "%s: no memory for a text of %lld bytes", what, (long long)n);
  mptl_status status = mptl_dnn_status(
      cudnnBackendGetAttribute(plan->plan, name, CUDNN_TYPE_CHAR, n, &n, bytes), what);
  if (status != MPTL_OK) {
    free(bytes);
    return status;
  }
  *text = (mptl_dnn_text){.bytes = bytes, .size = (size_t)n};
  snprintf(text->engine, sizeof text->engine, "%s", plan->engine);
  return MPTL_OK;
}

mptl_status mptl_dnn_read_plan(mptl_dnn_plan *plan, const mptl_dnn_device *device,
                               const mptl_dnn_text *text) {
  cudnnBackendDescriptor_t d;
  size_t bytes = 0;
  MPTL_TRY(mptl_dnn_begin_plan(&d, device));
  mptl_status status = mptl_dnn_set(d, what, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                    CUDNN_TYPE_CHAR, (int64_t)text->size, text->bytes);
  if (status == MPTL_OK) status = mptl_dnn_end_plan(&bytes, d);
  if (status == MPTL_OK && bytes > plan->key.workspace_limit)
    status =
        mptl_fail(MPTL_EUNSUPPORTED, "%s: it needs %zu bytes of workspace, at most %zu are allowed",
                  what, bytes, plan->key.workspace_limit);
  if (status != MPTL_OK) {
    cudnnBackendDestroyDescriptor(d);
    return status;
  }
  plan->plan = d;
  plan->workspace_bytes = bytes;
  snprintf(plan->engine, sizeof plan->engine, "%s", text->engine);
  return MPTL_OK;
}
