/* A convolution as an operation graph of cuDNN, and the addresses on which its plan runs. */
#ifndef MPTL_BACKEND_CUDA_DNN_GRAPH_H
#define MPTL_BACKEND_CUDA_DNN_GRAPH_H

#include "backend/cuda/dnn_descriptor.h"
#include "backend/cuda/dnn_device.h"
#include "backend/cuda/dnn_key.h"

/* Unique ids of a convolution's tensors. The sums are not stored in memory. */
typedef enum mptl_dnn_id {
  MPTL_DNN_FIRST = 1,
  MPTL_DNN_SECOND,
  MPTL_DNN_RESULT,
  MPTL_DNN_SUM
} mptl_dnn_id;
enum { MPTL_DNN_OPERANDS = 3 }; /* tensors in memory: two operands and the result */

/* Makes the operation graph of a key. Its descriptors are in pool. */
mptl_status mptl_dnn_add_graph(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *graph,
                               const mptl_dnn_device *device, const mptl_dnn_key *key);

/* Makes a variant pack of addresses: operands and result by id - 1, then the workspace. It cannot
 * be changed afterwards. */
mptl_status mptl_dnn_make_pack(cudnnBackendDescriptor_t *pack, void *const at[]);

#endif
