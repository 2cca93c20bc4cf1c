/* The whole numbers that products are checked with (check.h). */
#ifndef MPTL_BACKEND_CUDA_CHECK_NUMBERS_H
#define MPTL_BACKEND_CUDA_CHECK_NUMBERS_H

#include "backend/cuda/types.h"
#include "kernels/whole.h"

/* The numbers of the operands in one turn of a check. In turn 0 the first operand has all bits of
 * its type (F32: two more than TF32), in turn 1 the second one. F32 has two more turns: numbers of
 * 23 bits multiplied by ones and zeros, with so few ones that most sums have one or two products.
 * They reveal algorithms that add operands before multiplying, such as Winograd's smallest tiles,
 * which are exact for fewer bits. */
typedef struct mptl_cuda_check_numbers {
  mptl_whole first, second;
  int64_t most; /* sums whose products' magnitudes add up to this or more are skipped */
} mptl_cuda_check_numbers;

/* The number of turns. */
int mptl_cuda_check_turns(mptl_cuda_type first);

/* terms: products of a sum (mptl_conv_terms). In turns 0 and 1 every partial sum is below 2^24; for
 * 8-bit units before compute capability 10.0, which keep 13 fraction bits of a sum, below 2^13. If
 * the largest possible sum would exceed the limit, 16 standard deviations of a sum are below it.
 * The numbers are the same in every call. */
mptl_cuda_check_numbers mptl_cuda_check_numbers_of(uint64_t terms, mptl_cuda_type first,
                                                   mptl_cuda_type second, int capability, int turn);

#endif
