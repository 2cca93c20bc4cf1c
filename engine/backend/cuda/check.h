/* The check that every plan has to pass on its device before it is taken: what a library says of its code is not enough.
 *
 * A pass is run on whole numbers, several times, with two results and workspace filled with NaN before. Both results have to be the same bit for
 * bit, without a NaN, and a sample of their elements (all, if they are few) equal to the sums of products by definition. The numbers are
 * the same in every run, exact in the operands' types, and so small that all sums of parts of the products are exact in binary32: the order
 * of a sum does not matter, but a number with fewer bits than its type has, or a transformed one, does. For that, one
 * operand has many bits; then the other one. */
#ifndef MPTL_BACKEND_CUDA_CHECK_H
#define MPTL_BACKEND_CUDA_CHECK_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cuda/types.h"
#include "backend/shapes.h"
#include "kernels/whole.h"

/* A pass, and how it is run: as mptl_cuda_conv_run. A linear operator is a convolution of one pixel. */
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
  float ms;        /* of a run, the faster of those that were measured */
  char wrong[160]; /* what is */
} mptl_cuda_finding;

/* Other statuses than MPTL_OK: it could not be checked. MPTL_ENOMEM: the device has no memory for operands, two results and
 * workspace, which the current device gives and gets back. Waits for the stream. One thread at a time checks, others wait. */
mptl_status mptl_cuda_check(mptl_cuda_finding *finding, const mptl_cuda_checked *checked);

/* The numbers of the operands, for a turn: in turn 0 the first operand has as many bits as its type (F32: two more than TF32), in turn 1 the
 * second one. F32 has two more turns: 23 bits, by ones and zeros, so few ones that most sums are of one or two products. That shows where
 * operands are added before they are multiplied, as Winograd's smallest tiles are, which are exact for fewer bits. */
typedef struct mptl_cuda_check_numbers {
  mptl_whole first, second;
  int64_t most; /* sums whose products' magnitudes are as much together, or more, are no matter */
} mptl_cuda_check_numbers;

int mptl_cuda_check_turns(mptl_cuda_type first);

/* terms: products of a sum. 8-bit units before compute capability 10.0 keep 13 fraction bits of a sum: it is less than 2^13
 * then, else less than 2^24, in any part of it, in the turns 0 and 1. That is certain where even the largest products are too few for more; else the
 * limit is 16 standard deviations of the sum, and the numbers are the same always. */
mptl_cuda_check_numbers mptl_cuda_check_numbers_of(uint64_t terms, mptl_cuda_type first, mptl_cuda_type second, int capability,
                                                   int turn);

#endif
