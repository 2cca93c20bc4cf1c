/* The check of plans. A plan is used only if it computes the right sums on its device; a library's
 * notes about its code are not enough.
 *
 * The check runs a pass on whole numbers several times, into two results and a workspace that are
 * filled with NaN before. Both results must be equal bit for bit, without NaN, and a sample of
 * their elements (all, if there are few) must equal the sums of products by definition. The numbers
 * are the same in every run, exact in the operands' types, and so small that every partial sum is
 * exact in binary32. So the order of a sum does not matter, but sums are wrong if a library
 * multiplies fewer bits than the type has, or transforms operands: in one turn the first operand
 * has many bits, in another turn the second (check_numbers.h). */
#ifndef MPTL_BACKEND_CUDA_CHECK_H
#define MPTL_BACKEND_CUDA_CHECK_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* A pass, and the function that runs it, like mptl_cuda_conv_run. */
typedef struct mptl_cuda_checked {
  const mptl_conv_shape *shape;
  mptl_pass pass;
  mptl_cuda_type first, second;
  int capability;
  size_t workspace_bytes;
  cudaStream_t stream;
  mptl_status (*run)(void *context, float *result, const void *first, const void *second,
                     void *workspace);
  void *context;
} mptl_cuda_checked;

typedef struct mptl_cuda_finding {
  bool right;
  float ms;        /* time of the fastest run */
  char wrong[160]; /* what is wrong */
} mptl_cuda_finding;

/* Checks a pass. A status other than MPTL_OK means that it could not be checked; MPTL_ENOMEM: the
 * thread's current device, which must be the stream's, has no memory for operands, two results and
 * workspace. Waits for the stream. Only one thread at a time should check on a device, because
 * checks disturb each other's times. */
mptl_status mptl_cuda_check(mptl_cuda_finding *finding, const mptl_cuda_checked *checked);

#endif
