/* cuDNN's descriptors, and its errors as one line. */
#include "backend/cuda/dnn_descriptor.h"

#include <stdio.h>

mptl_status mptl_dnn_status(cudnnStatus_t status, const char *what) {
  if (status == CUDNN_STATUS_SUCCESS) return MPTL_OK;
  char reason[512] = "";
  cudnnGetLastErrorString(reason, sizeof reason);
  for (char *c = reason; *c != '\0'; c++)
    if (*c == '\n') *c = ' ';
  mptl_status code = MPTL_EBACKEND;
  if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED &&
      status != CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING &&
      status != CUDNN_STATUS_NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE)
    code = MPTL_EUNSUPPORTED;
  if (status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
      status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)
    code = MPTL_ENOMEM;
  return mptl_fail(code, "%s: cuDNN says %s%s%s", what, cudnnGetErrorString(status),
                   reason[0] == '\0' ? "" : ": ", reason);
}

mptl_status mptl_dnn_pool_add(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d,
                              cudnnBackendDescriptorType_t type) {
  if (pool->n == sizeof pool->all / sizeof *pool->all)
    return mptl_fail(MPTL_ENOMEM, "no room for more descriptors");
  MPTL_TRY(mptl_dnn_status(cudnnBackendCreateDescriptor(type, d), "descriptor"));
  pool->all[pool->n++] = *d;
  return MPTL_OK;
}

void mptl_dnn_pool_destroy(mptl_dnn_pool *pool) {
  while (pool->n > 0) cudnnBackendDestroyDescriptor(pool->all[--pool->n]);
}

mptl_status mptl_dnn_set(cudnnBackendDescriptor_t d, const char *what,
                         cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                         int64_t n, const void *values) {
  return mptl_dnn_status(cudnnBackendSetAttribute(d, name, type, n, values), what);
}

mptl_status mptl_dnn_set_int(cudnnBackendDescriptor_t d, const char *what,
                             cudnnBackendAttributeName_t name, int64_t value) {
  return mptl_dnn_set(d, what, name, CUDNN_TYPE_INT64, 1, &value);
}

mptl_status mptl_dnn_set_descriptor(cudnnBackendDescriptor_t d, const char *what,
                                    cudnnBackendAttributeName_t name,
                                    cudnnBackendDescriptor_t value) {
  return mptl_dnn_set(d, what, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

mptl_status mptl_dnn_finalize(cudnnBackendDescriptor_t d, const char *what) {
  return mptl_dnn_status(cudnnBackendFinalize(d), what);
}
