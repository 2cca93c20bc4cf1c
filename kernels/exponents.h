/* Counts of values by binary exponent, before they are rounded: the one scalar definition, for C
 * and CUDA.
 *
 * A finite value other than zero counts under floor(log2 |x|), which is -149 (the smallest
 * subnormal of binary32) to 127. Zeros of either sign, infinities and NaNs are counted separately,
 * so the counts of a tensor add up to the number of its elements.
 */
#ifndef MPTL_KERNELS_EXPONENTS_H
#define MPTL_KERNELS_EXPONENTS_H

#include "kernels/round.h"

#define MPTL_EXPONENT_FIRST (-149)
#define MPTL_EXPONENT_LAST 127
#define MPTL_EXPONENT_COUNTS (MPTL_EXPONENT_LAST - MPTL_EXPONENT_FIRST + 1)

/* Zero it before the first use. */
typedef struct mptl_exponents {
  uint64_t counts[MPTL_EXPONENT_COUNTS]; /* element i: exponent MPTL_EXPONENT_FIRST + i */
  uint64_t zeros, inf, nan;
  float max_abs; /* largest finite magnitude */
} mptl_exponents;

/* floor(log2 a), for the pattern of a magnitude 0 < a < infinity. */
static inline MPTL_HD int32_t mptl_exponent_of(uint32_t a) {
  int32_t exponent = (int32_t)(a >> 23) - 127;
  if (exponent > -127) return exponent;
  for (exponent = -149; a >> (exponent + 149) > 1;) exponent++; /* a subnormal: its leading bit */
  return exponent;
}

/* Counts the binary32 pattern u. */
static inline MPTL_HD void mptl_count_exponent(mptl_exponents *e, uint32_t u) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  if (a == 0)
    e->zeros++;
  else if (a > MPTL_F32_INF)
    e->nan++;
  else if (a == MPTL_F32_INF)
    e->inf++;
  else
    e->counts[mptl_exponent_of(a) - MPTL_EXPONENT_FIRST]++;
  if (a < MPTL_F32_INF && a > mptl_f32_bits(e->max_abs)) e->max_abs = mptl_bits_f32(a);
}

static inline MPTL_HD void mptl_exponents_merge(mptl_exponents *e, const mptl_exponents *more) {
  for (int i = 0; i < MPTL_EXPONENT_COUNTS; i++) e->counts[i] += more->counts[i];
  e->zeros += more->zeros;
  e->inf += more->inf;
  e->nan += more->nan;
  if (more->max_abs > e->max_abs) e->max_abs = more->max_abs;
}

#endif
