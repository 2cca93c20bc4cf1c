/* cuDNN 9 on an NVIDIA GPU: the object that everything of dnn_conv.h is made on. */
#ifndef MPTL_BACKEND_CUDA_DNN_H
#define MPTL_BACKEND_CUDA_DNN_H

#include <cuda_runtime_api.h>

#include "backend/cuda/device.h"

/* cuDNN on a device, with the plans that were made there. For one thread at a time. */
typedef struct mptl_cuda_dnn mptl_cuda_dnn;

/* For a device of this machine; work goes to stream (0: the default one), which outlives the object. The
 * device becomes the thread's current one, and must be current in every later call. MPTL_EUNSUPPORTED:
 * there is no such device, or no driver. */
mptl_status mptl_cuda_dnn_create(mptl_cuda_dnn **dnn, int device, cudaStream_t stream);

/* Another object for the same device and stream, for another thread, without the plans of the first,
 * which lives longer. */
mptl_status mptl_cuda_dnn_create_again(mptl_cuda_dnn **again, const mptl_cuda_dnn *dnn);
void mptl_cuda_dnn_destroy(mptl_cuda_dnn *dnn); /* NULL is allowed; after its convolutions */

/* Version of the cuDNN library that is loaded. */
mptl_cuda_version mptl_cuda_dnn_version(void);

/* Its plans (dnn_cache.h), for the files that make convolutions of them. */
struct mptl_dnn_cache *mptl_cuda_dnn_plans(mptl_cuda_dnn *dnn);

#endif
