/* cuDNN's backend descriptors with mptl's statuses. A failed call leaves one line that names the descriptor and gives cuDNN's reason. */
#ifndef MPTL_BACKEND_CUDA_DNN_GRAPH_H
#define MPTL_BACKEND_CUDA_DNN_GRAPH_H

#include <cudnn_graph.h>

#include "backend/cuda/dnn.h"

/* Everything that a plan depends on, its device aside. */
typedef struct mptl_dnn_key {
  mptl_conv_shape shape; /* whose bias does not matter */
  mptl_pass pass;
  mptl_cuda_type first, second;
  size_t workspace_limit;
} mptl_dnn_key;

typedef struct mptl_dnn_plan {
  mptl_dnn_key key;
  cudnnBackendDescriptor_t config, plan;
  size_t workspace_bytes;
  char engine[32];
  char *refusal; /* why there is no plan; NULL: there is one */
  struct mptl_dnn_plan *next;
} mptl_dnn_plan;

struct mptl_cuda_dnn {
  cudnnHandle_t handle;                /* NULL: the device is described, not there */
  cudnnBackendDescriptor_t properties; /* NULL: there is a handle */
  int capability;
  mptl_dnn_plan *plans; /* all that were asked for */
};

/* The plan of a key, made when it is first asked for; owned by dnn. */
mptl_status mptl_dnn_find_plan(const mptl_dnn_plan **plan, mptl_cuda_dnn *dnn, const mptl_dnn_key *key);
void mptl_dnn_destroy_plans(mptl_dnn_plan *plans);

/* Descriptors that are made and destroyed together. */
typedef struct mptl_dnn_pool {
  cudnnBackendDescriptor_t all[16];
  int n;
} mptl_dnn_pool;

mptl_status mptl_dnn_pool_add(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d, cudnnBackendDescriptorType_t type);
void mptl_dnn_pool_destroy(mptl_dnn_pool *pool);

/* The status of a cuDNN call; what: the thing that the message names. */
mptl_status mptl_dnn_status(cudnnStatus_t status, const char *what);

/* Attributes are set before a descriptor is finalised; what as above. */
mptl_status mptl_dnn_set(cudnnBackendDescriptor_t d, const char *what, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t n, const void *values);
mptl_status mptl_dnn_set_int(cudnnBackendDescriptor_t d, const char *what, cudnnBackendAttributeName_t name, int64_t value);
mptl_status mptl_dnn_set_descriptor(cudnnBackendDescriptor_t d, const char *what, cudnnBackendAttributeName_t name,
                                    cudnnBackendDescriptor_t value);
mptl_status mptl_dnn_finalize(cudnnBackendDescriptor_t d, const char *what);

/* Unique ids of a convolution's tensors. Sums are in no memory. */
typedef enum mptl_dnn_id { MPTL_DNN_FIRST = 1, MPTL_DNN_SECOND, MPTL_DNN_RESULT, MPTL_DNN_SUM } mptl_dnn_id;
enum { MPTL_DNN_OPERANDS = 3 }; /* that are in memory, the result counted in */

/* The operation graph of a key. */
mptl_status mptl_dnn_add_graph(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *graph, const mptl_cuda_dnn *dnn,
                               const mptl_dnn_key *key);

#endif
