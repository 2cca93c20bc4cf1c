/* Dense binary32 tensors over counted storage: parameters, images, gradients, whatever a script wants to look at. */
#ifndef MPTL_TENSOR_H
#define MPTL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

#define MPTL_MAX_DIMS 4

typedef struct mptl_storage mptl_storage; /* counted memory, 64-byte aligned */

typedef struct mptl_tensor {
  int refs;
  int ndim;                    /* 0 to MPTL_MAX_DIMS */
  int64_t dims[MPTL_MAX_DIMS]; /* row-major, contiguous */
  float *data;                 /* inside storage */
  mptl_storage *storage;
} mptl_tensor;

/* A tensor of zeros with storage of its own; the caller owns one reference. */
MPTL_API mptl_status mptl_tensor_create(mptl_tensor **tensor, int ndim, const int64_t *dims);

/* Another tensor over the same storage, offset elements into base; numel must fit. */
MPTL_API mptl_status mptl_tensor_view(mptl_tensor **tensor, mptl_tensor *base, size_t offset, int ndim, const int64_t *dims);

MPTL_API void mptl_tensor_retain(mptl_tensor *tensor);
MPTL_API void mptl_tensor_release(mptl_tensor *tensor); /* NULL is allowed */
MPTL_API size_t mptl_tensor_numel(const mptl_tensor *tensor);

#endif
