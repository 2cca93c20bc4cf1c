/* What the files of cuDNN and cuBLASLt share: the device, versions, the name of a pass, its limit of workspace. */
#ifndef MPTL_BACKEND_CUDA_DEVICE_H
#define MPTL_BACKEND_CUDA_DEVICE_H

#include <stdint.h>

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* What the choice of engines depends on in a device. */
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

/* A limit of workspace that depends on the pass's shape and on its device: 1.25 times the bytes of its arrays
 * in binary32, which cuDNN's faster engines for binary32 (in another order) and TF32 (padded) need; at least
 * 64 MiB, at most a sixteenth of the device's memory. It depends on nothing else, so that plans and results
 * are the same in every process and program. Other limits are bytes. */
#define MPTL_CUDA_USUAL_WORKSPACE SIZE_MAX

/* A limit in bytes; shape: also mptl_linear_as_conv's. */
size_t mptl_cuda_workspace_limit(const mptl_conv_shape *shape, const mptl_cuda_traits *traits, size_t limit);

/* "SHAPE, forward, bf16" */
void mptl_cuda_product_name(char *name, size_t size, const char *shape, mptl_pass pass, mptl_cuda_type first,
                            mptl_cuda_type second);

#endif
