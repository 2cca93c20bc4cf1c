/* Dropout: element i is multiplied by 1 / (1 - p) if mptl_random_uniform(key, i) >= p, else it
 * becomes 0. The mask is a function of key and index, so backward computes it again instead of
 * storing it. */
#include <math.h>

#include "kernels/cpu/table.h"
#include "kernels/cpu/vec_round.h"

typedef struct mask {
  uint32_t below; /* elements are dropped if the upper 24 bits of their word are below this */
  float factor;
} mask;

static mask mask_of(double p) {
  return (mask){(uint32_t)ceil(p * 0x1p24), p < 1.0 ? (float)(1.0 / (1.0 - p)) : 0.0f};
}

static inline float keep(mask m, uint32_t word, float x) {
  return word >> 8 >= m.below ? x * m.factor : 0.0f;
}

#if MPTL_VEC

void MPTL_CPU(dropout_f32)(float *dst, const float *src, size_t n, double p, mptl_key key,
                           uint64_t index0) {
  mask m = mask_of(p);
  uint32_t words[VEC_WORDS] __attribute__((aligned(64)));
  for (size_t i = 0, count; i < n; i += count) {
    size_t first = (index0 + i) % VEC_WORDS; /* of words */
    count = n - i < VEC_WORDS - first ? n - i : VEC_WORDS - first;
    vec_random(words, key, index0 + i - first);
    for (size_t j = 0; j < count; j++) dst[i + j] = keep(m, words[first + j], src[i + j]);
  }
}

#else

void MPTL_CPU(dropout_f32)(float *dst, const float *src, size_t n, double p, mptl_key key,
                           uint64_t index0) {
  mask m = mask_of(p);
  for (size_t i = 0; i < n; i++) dst[i] = keep(m, mptl_random_u32(key, index0 + i, 0), src[i]);
}

#endif
