/* The judge of plans on a GPU. */
#include "backend/cuda/dnn_check.h"

#include "backend/cuda/dnn_graph.h"

typedef struct run {
  cudnnHandle_t handle;
  cudnnBackendDescriptor_t plan, packs[2]; /* for two results */
  float *results[2];
} run;

static mptl_status execute(void *context, float *result, const void *first, const void *second,
                           void *workspace) {
  run *r = context;
  int i = r->results[0] == NULL || r->results[0] == result ? 0 : 1;
  void *const at[MPTL_DNN_OPERANDS + 1] = {(void *)first, (void *)second, result, workspace};
  if (r->packs[i] == NULL) MPTL_TRY(mptl_dnn_make_pack(&r->packs[i], at));
  r->results[i] = result;
  return mptl_dnn_status(cudnnBackendExecute(r->handle, r->plan, r->packs[i]), "run");
}

mptl_status mptl_dnn_check_plan(mptl_cuda_finding *finding, const mptl_dnn_device *device,
                                const mptl_dnn_plan *plan) {
  run r = {.handle = device->handle, .plan = plan->plan};
  const mptl_cuda_checked checked = {.shape = &plan->key.shape,
                                     .pass = plan->key.pass,
                                     .first = plan->key.first,
                                     .second = plan->key.second,
                                     .capability = device->traits.capability,
                                     .workspace_bytes = plan->workspace_bytes,
                                     .stream = device->stream,
                                     .run = execute,
                                     .context = &r};
  mptl_status status = mptl_cuda_check(finding, &checked);
  for (int i = 0; i < 2; i++)
    if (r.packs[i] != NULL) cudnnBackendDestroyDescriptor(r.packs[i]);
  return status;
}
