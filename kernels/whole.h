/* Integers for checking matrix products: the same on every device, and small enough that sums of
 * their products are exact. One definition for C and CUDA. */
#ifndef MPTL_KERNELS_WHOLE_H
#define MPTL_KERNELS_WHOLE_H

#include "kernels/random.h"

/* The numbers of an array: uniform in -largest to largest, and all but one of 2^thinning of them,
 * on average, replaced by 0. */
typedef struct mptl_whole {
  uint32_t largest, thinning;
  mptl_key key;
} mptl_whole;

static inline MPTL_HD int32_t mptl_whole_number(const mptl_whole *w, uint64_t index) {
  uint32_t bits = mptl_random_u32(w->key, index, 0);
  if ((bits & ((1u << w->thinning) - 1)) != 0) return 0;
  return (int32_t)((uint64_t)bits * (2 * (uint64_t)w->largest + 1) >> 32) - (int32_t)w->largest;
}

#endif
