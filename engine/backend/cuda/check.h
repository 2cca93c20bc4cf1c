/* The check that every plan must pass on its device before it is taken. What a library says of its code is
 * not enough.
 *
 * A pass is run on whole numbers, several times, into two results and a workspace that were filled with NaN.
 * Both results must be equal bit for bit and without a NaN, and a sample of their elements (all, if they are
 * few) must equal the sums of products by definition. The numbers are the same in every run, exact in the
 * operands' types, and so small that all sums of parts of the products are exact in binary32. So the order of
 * a sum does not matter, but a number with fewer bits than its type has, or a transformed one, does: in one
 * turn the first operand has many bits, in another one the second (check_numbers.h). */
#ifndef MPTL_BACKEND_CUDA_CHECK_H
#define MPTL_BACKEND_CUDA_CHECK_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* A pass, and how it is run: like mptl_cuda_conv_run. */
typedef struct mptl_cuda_checked {
  const mptl_conv_shape *shape;
  mptl_pass pass;
  mptl_cuda_type first, second;
  int capability;
  size_t workspace_bytes;
  cudaStream_t stream;
  mptl_status (*run)(void *context, float *result, const void *first, const void *second, void *workspace);
  void *context;
} mptl_cuda_checked;

typedef struct mptl_cuda_finding {
  bool right;
  float ms;        /* of a run, the fastest that was timed */
  char wrong[160]; /* how it is wrong */
} mptl_cuda_finding;

/* Other statuses than MPTL_OK: it could not be checked. MPTL_ENOMEM: the thread's current device, which must be
 * the stream's, has no memory for operands, two results and workspace. Waits for the stream. At most one
 * thread at a time should check on a device: others would disturb the times. */
mptl_status mptl_cuda_check(mptl_cuda_finding *finding, const mptl_cuda_checked *checked);

#endif
