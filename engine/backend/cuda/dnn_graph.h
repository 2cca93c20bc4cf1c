/* A convolution as cuDNN's operation graph, and the addresses that a plan of it runs on. */
#ifndef MPTL_BACKEND_CUDA_DNN_GRAPH_H
#define MPTL_BACKEND_CUDA_DNN_GRAPH_H

#include "backend/cuda/dnn_descriptor.h"
#include "backend/cuda/dnn_device.h"
#include "backend/cuda/dnn_key.h"

/* Unique ids of a convolution's tensors. Sums are in no memory. */
typedef enum mptl_dnn_id { MPTL_DNN_FIRST = 1, MPTL_DNN_SECOND, MPTL_DNN_RESULT, MPTL_DNN_SUM } mptl_dnn_id;
enum { MPTL_DNN_OPERANDS = 3 }; /* that are in memory, with the result */

/* The operation graph of a key; its descriptors are in pool. */
mptl_status mptl_dnn_add_graph(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *graph, const mptl_dnn_device *device,
                               const mptl_dnn_key *key);

/* A variant pack with these addresses: operands and result by id - 1, then the workspace. It cannot be changed afterwards. */
mptl_status mptl_dnn_make_pack(cudnnBackendDescriptor_t *pack, void *const at[]);

#endif
