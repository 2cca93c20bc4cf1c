/* What dnn.c and blas.c share: the device they are created for, the name of a pass. */
#ifndef MPTL_BACKEND_CUDA_DEVICE_H
#define MPTL_BACKEND_CUDA_DEVICE_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* Makes the device the thread's current one; capability: 10 * major + minor. MPTL_EUNSUPPORTED: there is no such device, or no driver. */
mptl_status mptl_cuda_use_device(int device, int *capability);

/* "SHAPE, forward, bf16" */
void mptl_cuda_product_name(char *name, size_t size, const char *shape, mptl_pass pass, mptl_cuda_type first,
                            mptl_cuda_type second);

#endif
