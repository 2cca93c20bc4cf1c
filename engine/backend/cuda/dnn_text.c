/* Plans as text, which cuDNN calls their JSON representation. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/dnn_graph.h"

static const char *what = "execution plan";

mptl_status mptl_dnn_write_plan(mptl_dnn_text *text, const mptl_dnn_plan *plan) {
  const cudnnBackendAttributeName_t name = CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
  int64_t n = 0;
  MPTL_TRY(mptl_dnn_status(cudnnBackendGetAttribute(plan->plan, name, CUDNN_TYPE_CHAR, 0, &n, NULL), what));
  char *bytes = n > 0 ? malloc((size_t)n) : NULL;
  if (bytes == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory for a text of %lld bytes", what, (long long)n);
  mptl_status status = mptl_dnn_status(cudnnBackendGetAttribute(plan->plan, name, CUDNN_TYPE_CHAR, n, &n, bytes), what);
  if (status != MPTL_OK) {
    free(bytes);
    return status;
  }
  *text = (mptl_dnn_text){.bytes = bytes, .size = (size_t)n};
  snprintf(text->engine, sizeof text->engine, "%s", plan->engine);
  return MPTL_OK;
}

mptl_status mptl_dnn_read_plan(mptl_dnn_plan *plan, const mptl_cuda_dnn *dnn, const mptl_dnn_text *text) {
  cudnnBackendDescriptor_t d;
  size_t bytes = 0;
  MPTL_TRY(mptl_dnn_begin_plan(&d, dnn));
  mptl_status status =
      mptl_dnn_set(d, what, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)text->size, text->bytes);
  if (status == MPTL_OK) status = mptl_dnn_end_plan(&bytes, d);
  if (status == MPTL_OK && bytes > plan->key.workspace_limit)
    status = mptl_fail(MPTL_EUNSUPPORTED, "%s: it needs %zu bytes of workspace, at most %zu are allowed", what, bytes,
                       plan->key.workspace_limit);
  if (status != MPTL_OK) {
    cudnnBackendDestroyDescriptor(d);
    return status;
  }
  plan->plan = d;
  plan->workspace_bytes = bytes;
  snprintf(plan->engine, sizeof plan->engine, "%s", text->engine);
  return MPTL_OK;
}
