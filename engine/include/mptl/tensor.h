/* Dense binary32 tensors in counted memory: parameters, images, gradients, everything that a script
 * reads. The tensors of a model are in its device's memory, all others in the host's. */
#ifndef MPTL_TENSOR_H
#define MPTL_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/device.h"
#include "mptl/status.h"

#define MPTL_MAX_DIMS 4

typedef struct mptl_storage
    mptl_storage; /* counted memory, 64-byte aligned; it keeps its device open */

typedef struct mptl_tensor {
  int refs;                    /* references; the last release frees the tensor */
  int ndim;                    /* 0 to MPTL_MAX_DIMS */
  int64_t dims[MPTL_MAX_DIMS]; /* row-major, contiguous */
  float *data;                 /* in storage; the host can access it if mptl_tensor_on_host */
  mptl_storage *storage;
} mptl_tensor;

/* Creates a tensor of zeros in the host's memory; the caller owns one reference. MPTL_EINVAL:
 * dimensions; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_tensor_create(mptl_tensor **tensor, int ndim, const int64_t *dims);

/* The same in host memory that the device can read itself (not counted if the device is a GPU): for
 * images that go to the device in every step. */
MPTL_API mptl_status mptl_tensor_create_for(mptl_tensor **tensor, mptl_device *device, int ndim,
                                            const int64_t *dims);

/* The same in the memory of a device. */
mptl_status mptl_tensor_create_in(mptl_tensor **tensor, mptl_device *device, int ndim,
                                  const int64_t *dims);

MPTL_API void mptl_tensor_retain(mptl_tensor *tensor);
MPTL_API void mptl_tensor_release(mptl_tensor *tensor); /* NULL is allowed */
MPTL_API size_t mptl_tensor_numel(const mptl_tensor *tensor);

/* Whether the host can access data. */
MPTL_API bool mptl_tensor_on_host(const mptl_tensor *tensor);

/* Copies the elements [offset, offset + n) to or from host memory. Reading waits for the device's
 * work. MPTL_EINVAL if the tensor does not have these elements. */
MPTL_API mptl_status mptl_tensor_read(const mptl_tensor *tensor, size_t offset, size_t n,
                                      float *values);
MPTL_API mptl_status mptl_tensor_write(mptl_tensor *tensor, size_t offset, size_t n,
                                       const float *values);

#endif
