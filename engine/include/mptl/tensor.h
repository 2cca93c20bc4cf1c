/* Dense binary32 tensors over counted storage: parameters, images, gradients, whatever a script wants to look at. A model's are in its
 * device's memory; all others are in the host's. */
#ifndef MPTL_TENSOR_H
#define MPTL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/device.h"
#include "mptl/status.h"

#define MPTL_MAX_DIMS 4

typedef struct mptl_storage mptl_storage; /* counted memory, 64-byte aligned; it keeps its device open */

typedef struct mptl_tensor {
  int refs;
  int ndim;                    /* 0 to MPTL_MAX_DIMS */
  int64_t dims[MPTL_MAX_DIMS]; /* row-major, contiguous */
  float *data;                 /* inside storage; not for the host to look at unless mptl_tensor_on_host */
  mptl_storage *storage;
} mptl_tensor;

/* A tensor of zeros with storage of its own in the host's memory; the caller owns one reference. */
MPTL_API mptl_status mptl_tensor_create(mptl_tensor **tensor, int ndim, const int64_t *dims);

/* The same in memory of the host that the device reads by itself (a GPU's is not counted): for images that go there in every step. */
MPTL_API mptl_status mptl_tensor_create_for(mptl_tensor **tensor, mptl_device *device, int ndim, const int64_t *dims);

/* The same in a device's memory. */
mptl_status mptl_tensor_create_in(mptl_tensor **tensor, mptl_device *device, int ndim, const int64_t *dims);

MPTL_API void mptl_tensor_retain(mptl_tensor *tensor);
MPTL_API void mptl_tensor_release(mptl_tensor *tensor); /* NULL is allowed */
MPTL_API size_t mptl_tensor_numel(const mptl_tensor *tensor);

/* Whether the host can use data itself. */
MPTL_API bool mptl_tensor_on_host(const mptl_tensor *tensor);

/* Elements [offset, offset + n), which must be inside, to or from the host's memory. Reading waits for work on the device. */
MPTL_API mptl_status mptl_tensor_read(const mptl_tensor *tensor, size_t offset, size_t n, float *values);
MPTL_API mptl_status mptl_tensor_write(mptl_tensor *tensor, size_t offset, size_t n, const float *values);

#endif
