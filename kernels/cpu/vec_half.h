/* Decoding of 8-bit codes through binary16, which the processor converts to binary32: a code with
 * its exponent and fraction at binary16's places is the value times a power of two, subnormal
 * values included. It takes 10 instructions for two vectors of AVX-512, vec_decode 14.
 */
#ifndef MPTL_KERNELS_CPU_VEC_HALF_H
#define MPTL_KERNELS_CPU_VEC_HALF_H

#include "kernels/cpu/vec.h"
#include "kernels/round.h"

#if MPTL_VEC

/* A format in registers. */
typedef struct vec_half {
  vu bits;  /* of the code, at binary16's places, in each lane of 16 bits */
  vu scale; /* the power of two, as a binary32 pattern: products with it are exact */
  unsigned shift;
} vec_half;

/* Whether all finite values of a format are finite in binary16, up to the power of two; codes
 * with the largest exponent of 5 bits are not. */
static inline bool vec_half_decodes(const mptl_rounder *r) {
  const int scale = r->emin + 14;
  return r->has_halves && r->code_sign == 128 && r->format.e <= 5 && scale >= -126 && scale <= 127;
}

/* The codes without sign that are decoded: less than this. */
static inline uint32_t vec_half_limit(const mptl_rounder *r) {
  const uint32_t infinite = 31u << r->m;
  return r->max_code < infinite ? r->max_code + 1 : infinite;
}

static inline vec_half vec_half_for(const mptl_rounder *r) {
  const unsigned shift = 10 - (unsigned)r->m;
  const uint32_t bits = 0x8000u | (r->code_sign - 1) << shift;
  return (vec_half){.bits = v_set(bits << 16 | bits),
                    .scale = v_set((uint32_t)(r->emin + 14 + 127) << 23),
                    .shift = shift};
}

/* The 2 VN codes that v_load8_16 returned, as binary32: to be multiplied by scale. */
static inline void vec_half_convert(vu values[2], vu codes, const vec_half *h) {
  const vu halves = v_and(v_shl16(codes, h->shift), h->bits);
  values[0] = v_half_low(halves);
  values[1] = v_half_high(halves);
}

#endif
#endif
