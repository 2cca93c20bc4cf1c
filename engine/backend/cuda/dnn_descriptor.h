/* cuDNN's backend descriptors with mptl's statuses. A failed call leaves one line that names the
 * descriptor and gives cuDNN's reason. */
#ifndef MPTL_BACKEND_CUDA_DNN_DESCRIPTOR_H
#define MPTL_BACKEND_CUDA_DNN_DESCRIPTOR_H

#include <cudnn_graph.h>

#include "mptl/status.h"

/* The status of a cuDNN call. what: the thing that the message names. MPTL_EUNSUPPORTED: cuDNN does
 * not have it, or not for the device. MPTL_EBACKEND: other errors, such as a library that this
 * machine lacks. */
mptl_status mptl_dnn_status(cudnnStatus_t status, const char *what);

/* Set attributes of a descriptor that is not finalised yet. what: as above. */
mptl_status mptl_dnn_set(cudnnBackendDescriptor_t d, const char *what,
                         cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                         int64_t n, const void *values);
mptl_status mptl_dnn_set_int(cudnnBackendDescriptor_t d, const char *what,
                             cudnnBackendAttributeName_t name, int64_t value);
mptl_status mptl_dnn_set_descriptor(cudnnBackendDescriptor_t d, const char *what,
                                    cudnnBackendAttributeName_t name,
                                    cudnnBackendDescriptor_t value);
mptl_status mptl_dnn_finalize(cudnnBackendDescriptor_t d, const char *what);

/* Descriptors that are created one by one and destroyed together. */
typedef struct mptl_dnn_pool {
  cudnnBackendDescriptor_t all[16];
  int n;
} mptl_dnn_pool;

mptl_status mptl_dnn_pool_add(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d,
                              cudnnBackendDescriptorType_t type);
void mptl_dnn_pool_destroy(mptl_dnn_pool *pool);

#endif
