/* cuDNN 9 on an NVIDIA GPU: the object that convolutions (dnn_conv.h) need. */
#ifndef MPTL_BACKEND_CUDA_DNN_H
#define MPTL_BACKEND_CUDA_DNN_H

#include <cuda_runtime_api.h>

#include "backend/cuda/device.h"

/* cuDNN on a device, with the plans made for it. One thread at a time may use it. */
typedef struct mptl_cuda_dnn mptl_cuda_dnn;

/* For a device of this machine. Work goes to stream (0: the default stream), which must exist
 * longer than the object. The device becomes the thread's current one, and must be current in every
 * later call. MPTL_EUNSUPPORTED: there is no such device, or no driver. */
mptl_status mptl_cuda_dnn_create(mptl_cuda_dnn **dnn, int device, cudaStream_t stream);

/* Another object for the same device and stream, for another thread. It does not have the plans of
 * the first object, which must be destroyed later. */
mptl_status mptl_cuda_dnn_create_again(mptl_cuda_dnn **again, const mptl_cuda_dnn *dnn);
void mptl_cuda_dnn_destroy(mptl_cuda_dnn *dnn); /* after its convolutions; NULL is allowed */

/* Version of the cuDNN library that is loaded. */
mptl_cuda_version mptl_cuda_dnn_version(void);

/* The cache of plans (dnn_cache.h), for the files that make convolutions. */
struct mptl_dnn_cache *mptl_cuda_dnn_plans(mptl_cuda_dnn *dnn);

#endif
