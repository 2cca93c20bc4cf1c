/* What the files for cuDNN and cuBLASLt share: the device, versions, names of products, limits of
 * workspace. */
#ifndef MPTL_BACKEND_CUDA_DEVICE_H
#define MPTL_BACKEND_CUDA_DEVICE_H

#include <stdint.h>

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* The properties of a device on which the choice of engines depends. */
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

/* Makes the device the thread's current one. MPTL_EUNSUPPORTED: there is no such device, or no
 * driver. */
mptl_status mptl_cuda_use_device(int device, mptl_cuda_traits *traits);

/* The usual limit of workspace: 1.25 times the bytes of a pass's arrays in binary32, which cuDNN's
 * faster engines for binary32 (arrays in another order) and TF32 (padded arrays) need; at most a
 * sixteenth of the device's memory, but at least 64 MiB. It depends only on shape and device, so
 * that plans and results are the same in every process and program. Other limits are numbers of
 * bytes. */
#define MPTL_CUDA_USUAL_WORKSPACE SIZE_MAX

/* Returns a limit in bytes. shape: for linear layers, what mptl_linear_as_conv returns. */
size_t mptl_cuda_workspace_limit(const mptl_conv_shape *shape, const mptl_cuda_traits *traits,
                                 size_t limit);

/* "SHAPE, forward, bf16" */
void mptl_cuda_product_name(char *name, size_t size, const char *shape, mptl_pass pass,
                            mptl_cuda_type first, mptl_cuda_type second);

#endif
