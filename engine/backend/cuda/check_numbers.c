/* The whole numbers that products are checked with. */
#include "backend/cuda/check_numbers.h"

enum { TURNS_SEED = 20, SUM_BITS = 24, SUM_BITS_OF_8 = 13, FULL_SUMS_FROM = 100 };

/* Significant bits of a type's numbers. */
static const int bits_of[MPTL_CUDA_TYPES] = {[MPTL_CUDA_F32] = 13,
                                             [MPTL_CUDA_TF32] = 11,
                                             [MPTL_CUDA_BF16] = 8,
                                             [MPTL_CUDA_E4M3] = 4,
                                             [MPTL_CUDA_E5M2] = 3};

/* Whether sums of `terms` products of numbers up to a and b stay below 2^bits: always, or with 16
 * standard deviations. */
static bool fits(double terms, double a, double b, int bits) {
  const double limit = (double)(1u << bits), deviations = 16,
               variance = a * (a + 1) / 3 * b * (b + 1) / 3;
  return terms * a * b < limit || deviations * deviations * terms * variance < limit * limit;
}

int mptl_cuda_check_turns(mptl_cuda_type first) { return first == MPTL_CUDA_F32 ? 4 : 2; }

/* The numbers of the turns in which F32 has nearly all its bits. */
static mptl_cuda_check_numbers sparse_numbers(uint64_t terms, int turn) {
  uint32_t thinning = 0;
  while (terms * 2 / 3 >> thinning > 1)
    thinning++; /* two thirds of -1, 0, 1 are not 0; one or two products of a sum must not be 0 */
  mptl_cuda_check_numbers n = {.most = 1 << SUM_BITS};
  for (uint32_t i = 0; i < 2; i++) {
    bool wide = (int)i == turn % 2;
    *(i == 0 ? &n.first : &n.second) =
        (mptl_whole){wide ? (1u << 23) - 1 : 1, wide ? 0 : thinning,
                     mptl_make_key(TURNS_SEED + (uint64_t)turn, MPTL_STREAM_INIT, i, 0)};
  }
  return n;
}

mptl_cuda_check_numbers mptl_cuda_check_numbers_of(uint64_t terms, mptl_cuda_type first,
                                                   mptl_cuda_type second, int capability,
                                                   int turn) {
  if (turn > 1) return sparse_numbers(terms, turn);
  const int sum_bits =
      mptl_cuda_type_size(first) == 1 && capability < FULL_SUMS_FROM ? SUM_BITS_OF_8 : SUM_BITS;
  const uint32_t most[] = {(1u << bits_of[first]) - 1, (1u << bits_of[second]) - 1};
  const uint32_t large = most[turn], limit = most[1 - turn];
  uint32_t thinning = 0, small = 1;
  double left = (double)terms; /* number of products that are not 0 */
  while (!fits(left, large, small, sum_bits)) left /= 2, thinning++;
  while (small < limit && fits(left, large, small + 1, sum_bits)) small++;
  mptl_whole numbers[2];
  for (uint32_t i = 0; i < 2; i++)
    numbers[i] = (mptl_whole){(int)i == turn ? large : small, (int)i == turn ? 0 : thinning,
                              mptl_make_key(TURNS_SEED + (uint64_t)turn, MPTL_STREAM_INIT, i, 0)};
  return (mptl_cuda_check_numbers){numbers[0], numbers[1], INT64_MAX};
}
