/* What dnn.c and blas.c share: the device they are created for, the name of a pass, how much workspace one gets. */
#ifndef MPTL_BACKEND_CUDA_DEVICE_H
#define MPTL_BACKEND_CUDA_DEVICE_H

#include <stdint.h>

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* What passes are chosen by in a device. */
typedef struct mptl_cuda_traits {
  int capability; /* 10 * major + minor */
  size_t memory_bytes;
} mptl_cuda_traits;

/* A library's version, "9.19.0". */
typedef struct mptl_cuda_version {
  char text[32];
} mptl_cuda_version;

/* From cuDNN's and cuBLASLt's form, 10000 * major + 100 * minor + patch. */
mptl_cuda_version mptl_cuda_version_of(size_t version);

/* Makes the device the thread's current one. MPTL_EUNSUPPORTED: there is no such device, or no driver. */
mptl_status mptl_cuda_use_device(int device, mptl_cuda_traits *traits);

/* Stands, as a limit of workspace, for what a pass of its shape gets on its device: room for its values in binary32 once more and a
 * quarter, which is what cuDNN's faster engines for binary32 (in another order) and TF32 (padded) want; at least 64 MiB, at most a
 * sixteenth of the device's memory. Other limits are bytes. It depends on nothing else, so that plans and results are the same in every
 * process, in every program. */
#define MPTL_CUDA_USUAL_WORKSPACE SIZE_MAX

/* A limit in bytes. */
size_t mptl_cuda_workspace_limit(const mptl_conv_shape *shape, const mptl_cuda_traits *traits, size_t limit);

/* "SHAPE, forward, bf16" */
void mptl_cuda_product_name(char *name, size_t size, const char *shape, mptl_pass pass, mptl_cuda_type first,
                            mptl_cuda_type second);

#endif
