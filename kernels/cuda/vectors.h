/* Vectors of eight elements in a thread: codes to numbers and back, random bits, rounding with counts.
 *
 * Rounding is kernels/round.h's, compiled for the device. To nearest even in the usual formats there is a quicker way, and so there is
 * for encoding and decoding; specs hold them to the definition bit for bit.
 */
#ifndef MPTL_KERNELS_CUDA_VECTORS_H
#define MPTL_KERNELS_CUDA_VECTORS_H

#include "kernels/cuda/operands.h"

MPTL_DEVICE unsigned mptl_lane(void) { return threadIdx.x & 31u; }

/* ---- Codes ---- */

/* The rounder again, without its table: what kernels/round.h reads of it. */
MPTL_DEVICE mptl_rounder mptl_rounder_of(const mptl_grid &g) {
  mptl_rounder r;
  r.mode = (mptl_rounding_mode)g.mode;
  r.emin = g.emin, r.m = g.m;
  r.max_bits = g.max_bits, r.min_bits = g.min_bits, r.over_bits = g.over_bits;
  r.code_sign = g.code_sign, r.max_code = g.max_code, r.inf_code = g.inf_code, r.nan_code = g.nan_code;
  r.has_infinity = g.has_infinity, r.has_nan = g.has_nan;
  return r;
}

/* The definition, in functions that are called: inlined for every element of a vector they would be most of a kernel. */
static __device__ MPTL_NOINLINE uint32_t mptl_decode_slowly(uint32_t code, const mptl_grid *g) {
  mptl_rounder r = mptl_rounder_of(*g);
  return mptl_decode_code(code, &r);
}

static __device__ MPTL_NOINLINE uint32_t mptl_encode_slowly(uint32_t u, const mptl_grid *g) {
  mptl_rounder r = mptl_rounder_of(*g);
  return mptl_encode_bits(u, &r);
}

/* The event is in the upper half of what comes back. */
static __device__ MPTL_NOINLINE uint64_t mptl_round_slowly(uint32_t u, const mptl_grid *g, uint32_t word, mptl_key key,
                                                           uint64_t index) {
  uint32_t event;
  mptl_rounder r = mptl_rounder_of(*g);
  uint32_t rounded = mptl_round_bits_word(u, &r, word, key, index, &event);
  return (uint64_t)event << 32 | rounded;
}

/* As mptl_decode_code. */
MPTL_DEVICE uint32_t mptl_decode(uint32_t code, const mptl_grid &g) {
  uint32_t magnitude = code & (g.code_sign - 1);
  if (g.quick_decode && magnitude <= g.max_code)
    return __float_as_uint(__uint_as_float(magnitude << (23 - g.m)) * g.scale) | (code & g.code_sign) << g.sign_shift;
  return mptl_decode_slowly(code, &g);
}

/* As mptl_encode_bits. */
MPTL_DEVICE uint32_t mptl_encode(uint32_t u, const mptl_grid &g) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  if (g.quick_encode && a <= g.max_bits) {
    uint32_t code = (a >> (23 - g.m)) - ((uint32_t)(g.emin + 126) << g.m);
    if (a < g.small_below) code = __float_as_uint(__uint_as_float(a) + g.magic) - __float_as_uint(g.magic);
    return code | (u & MPTL_F32_SIGN) >> g.sign_shift;
  }
  return mptl_encode_slowly(u, &g);
}

/* Kernels have a PLAIN form beside the general one, for what is usual and has to be fast. It takes whole vectors in aligned places, codes of
 * one or two bytes of formats that are decoded and encoded quickly, rounding to nearest even (MPTL_ROUND_KEEP, MPTL_ROUND_EVEN, or none),
 * and no counting of exponents: mptl_is_plain says of an operand whether that is so. */

/* A vector of codes, EACH of them in a word. */
template <bool PLAIN, int EACH>
MPTL_DEVICE void mptl_decode_wide(float *x, const uint32_t *words, const mptl_grid &g) {
  uint32_t special = !PLAIN && !g.quick_decode;
#pragma unroll
  for (int w = 0; w < MPTL_WIDE / EACH; w++) special |= ((words[w] & g.magnitudes) + g.past_max) & g.signs;
  if (special == 0) {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) {
      uint32_t code = words[k / EACH] >> k % EACH * (32 / EACH);
      uint32_t a = __float_as_uint(__uint_as_float((code & (g.code_sign - 1)) << (23 - g.m)) * g.scale);
      x[k] = __uint_as_float(a | (code & g.code_sign) << g.sign_shift);
    }
    return;
  }
  float slow[MPTL_WIDE];
  uint32_t again[MPTL_WIDE / EACH]; /* so that only this one is in memory */
#pragma unroll
  for (int w = 0; w < MPTL_WIDE / EACH; w++) again[w] = words[w];
#pragma unroll 1
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t code = again[k / EACH] >> k % EACH * (32 / EACH) & ((g.code_sign << 1) - 1);
    mptl_rounder r = mptl_rounder_of(g);
    slow[k] = __uint_as_float(mptl_decode_code(code, &r));
  }
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) x[k] = slow[k];
}

/* The largest magnitude of a vector, as a pattern. */
MPTL_DEVICE uint32_t mptl_largest_of(const float *x) {
  uint32_t largest = 0;
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t a = __float_as_uint(x[k]) & ~MPTL_F32_SIGN;
    largest = a > largest ? a : largest;
  }
  return largest;
}

/* A vector of values of a grid to codes, EACH of them in a word. within: no magnitude is beyond the largest value. */
template <bool PLAIN, int EACH>
MPTL_DEVICE void mptl_encode_wide(uint32_t *words, const float *x, const mptl_grid &g, bool within) {
#pragma unroll
  for (int w = 0; w < MPTL_WIDE / EACH; w++) words[w] = 0;
  if ((PLAIN || g.inverse_scale != 0.0f) && (within || mptl_largest_of(x) <= g.max_bits)) {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) {
      uint32_t u = __float_as_uint(x[k] * g.inverse_scale);
      uint32_t code = (u & ~MPTL_F32_SIGN) >> (23 - g.m) | (u >> g.sign_shift & g.code_sign);
      words[k / EACH] |= code << k % EACH * (32 / EACH);
    }
    return;
  }
  float slow[MPTL_WIDE];
  uint32_t codes[MPTL_WIDE];
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) slow[k] = x[k];
#pragma unroll 1
  for (int k = 0; k < MPTL_WIDE; k++) {
    mptl_rounder r = mptl_rounder_of(g);
    codes[k] = mptl_encode_bits(__float_as_uint(slow[k]), &r);
  }
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) words[k / EACH] |= codes[k] << k % EACH * (32 / EACH);
}

/* ---- Random bits ---- */

/* Swaps what makes element j of v[4] that of j ^ q. */
MPTL_DEVICE void mptl_exchange(uint32_t *v, unsigned q) {
  uint32_t a = q & 1 ? v[1] : v[0], b = q & 1 ? v[0] : v[1], c = q & 1 ? v[3] : v[2], d = q & 1 ? v[2] : v[3];
  v[0] = q & 2 ? c : a, v[1] = q & 2 ? d : b, v[2] = q & 2 ? a : c, v[3] = q & 2 ? b : d;
}

/* words[k] = mptl_random_u32(key, index + k, 0), where index is the lane's: vectors of a warp follow each other, and all its lanes call.
 *
 * Eight lanes have 64 elements, which are the four words of 16 counters; of the eight lanes the four even ones need the same eight
 * counters, each another word, and so do the odd ones. So each draws two counters and they exchange. */
MPTL_DEVICE void mptl_random_wide(uint32_t *words, mptl_key key, uint64_t index) {
  uint64_t first = index - (uint64_t)mptl_lane() * MPTL_WIDE; /* of the warp: the same in all lanes */
  if (first % 64 != 0) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++) words[k] = mptl_random_u32(key, index + k, 0);
    return;
  }
  unsigned q = mptl_lane() / 2 % 4;
  uint64_t counter = index / 64 * 16 + index % 16 + 2 * q; /* index % 16 is 0 or 8 */
#pragma unroll
  for (unsigned c = 0; c < 2; c++) {
    uint32_t v[4], got[4];
    mptl_philox(v, key, counter + c, 0);
    mptl_exchange(v, q); /* v[s] is for the lane q ^ s, which needs word q ^ s */
#pragma unroll
    for (unsigned s = 0; s < 4; s++) got[s] = __shfl_xor_sync(0xffffffffu, v[s], s << 1); /* counter 2 (q ^ s) + c, word q */
    mptl_exchange(got, q);
#pragma unroll
    for (unsigned p = 0; p < 4; p++) words[2 * p + c] = got[p];
  }
}

/* ---- Rounding ---- */

/* What a thread has counted for a sink; max is a magnitude's pattern. */
typedef struct mptl_counts {
  uint32_t underflow, overflow, inf_in, nan_in, max;
} mptl_counts;

MPTL_DEVICE mptl_counts mptl_no_counts(void) {
  mptl_counts c = {0, 0, 0, 0, 0};
  return c;
}

/* u's event is counted. */
MPTL_DEVICE void mptl_count_event(mptl_counts *counts, uint32_t u, uint32_t event) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  counts->underflow += event == MPTL_EVENT_UNDERFLOW;
  counts->overflow += event == MPTL_EVENT_OVERFLOW;
  counts->inf_in += event == MPTL_EVENT_INF;
  counts->nan_in += event == MPTL_EVENT_NAN;
  if (a < MPTL_F32_INF && a > counts->max) counts->max = a;
}

MPTL_DEVICE uint32_t mptl_round_one(uint32_t u, const mptl_grid &g, uint32_t word, mptl_key key, uint64_t index,
                                    mptl_counts *counts) {
  uint64_t both = mptl_round_slowly(u, &g, word, key, index);
  mptl_count_event(counts, u, (uint32_t)(both >> 32));
  return (uint32_t)both;
}

/* To nearest even, of magnitudes up to the largest value, in both ways; counted. */
MPTL_DEVICE uint32_t mptl_round_even(uint32_t a, const mptl_grid &g, mptl_counts *counts) {
  uint32_t drop = 23 - (uint32_t)g.m, mask = (1u << drop) - 1;
  uint32_t even = (a + (mask >> 1) + (mask ? a >> drop & 1 : 0)) & ~mask;
  uint32_t small = __float_as_uint((__uint_as_float(a) + g.magic) - g.magic), rounded = a < g.small_below ? small : even;
  counts->underflow += rounded == 0 && a != 0;
  counts->max = a > counts->max ? a : counts->max;
  return rounded;
}

/* A vector of magnitudes up to the largest value, by an exponent's power of two: the sum's last place is the format's. */
MPTL_DEVICE void mptl_round_even_wide(float *x, const mptl_grid &g, mptl_counts *counts) {
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t u = __float_as_uint(x[k]), a = u & ~MPTL_F32_SIGN, exponent = a & MPTL_F32_INF;
    float power = __uint_as_float((exponent > g.first_exponent ? exponent : g.first_exponent) + g.lift);
    counts->underflow += a - 1 < g.tie;
    x[k] = __uint_as_float(__float_as_uint((__uint_as_float(a) + power) - power) | (u & MPTL_F32_SIGN));
  }
}

/* Rounds the first n of x in place; the others become 0. index is the first one's, and words are its random bits in the stochastic
 * mode. Returns whether it is known that no magnitude is beyond the largest value now. */
template <bool PLAIN>
MPTL_DEVICE bool mptl_round_words(float *x, unsigned n, const mptl_grid &g, const uint32_t *words, mptl_key key, uint64_t index,
                                  mptl_counts *counts) {
  if (g.way == MPTL_ROUND_NOT) return false;
  if (!PLAIN && n < MPTL_WIDE) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k >= n) x[k] = 0.0f;
  }
  if (PLAIN || g.way != MPTL_ROUND_BITS) {
    uint32_t largest = mptl_largest_of(x);
    if (largest <= g.max_bits) {
      if (g.way == MPTL_ROUND_EVEN) mptl_round_even_wide(x, g, counts);
      if (!PLAIN && g.way == MPTL_ROUND_CARRY) {
#pragma unroll
        for (int k = 0; k < MPTL_WIDE; k++) {
          uint32_t u = __float_as_uint(x[k]);
          x[k] = __uint_as_float(mptl_round_even(u & ~MPTL_F32_SIGN, g, counts) | (u & MPTL_F32_SIGN));
        }
      }
      counts->max = largest > counts->max ? largest : counts->max;
      return true;
    }
  }
  float slow[MPTL_WIDE]; /* by the definition, and in memory: rare, or slow anyway */
  uint32_t bits[MPTL_WIDE];
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) slow[k] = x[k], bits[k] = PLAIN ? 0 : words[k];
#pragma unroll 1
  for (unsigned k = 0; k < n; k++) {
    uint32_t u = __float_as_uint(slow[k]), event;
    mptl_rounder r = mptl_rounder_of(g);
    if (PLAIN) r.mode = MPTL_NEAREST_EVEN;
    slow[k] = __uint_as_float(mptl_round_bits_word(u, &r, bits[k], key, index + k, &event));
    mptl_count_event(counts, u, event);
  }
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) x[k] = slow[k];
  return false;
}

/* The same for vectors of a warp that follow each other, all lanes calling (some with n = 0): they draw random bits together. */
template <bool PLAIN = false>
MPTL_DEVICE bool mptl_round_wide(float *x, unsigned n, const mptl_sink_arg &s, size_t i, mptl_counts *counts) {
  uint32_t words[MPTL_WIDE] = {0};
  if (!PLAIN && s.grid.way == MPTL_ROUND_BITS && s.grid.mode == MPTL_STOCHASTIC) mptl_random_wide(words, s.key, s.index0 + i);
  return mptl_round_words<PLAIN>(x, n, s.grid, words, s.key, s.index0 + i, counts);
}

/* For vectors that are anywhere. index: of the first element's random bits. */
MPTL_DEVICE void mptl_round_anywhere(float *x, unsigned n, const mptl_sink_arg &s, uint64_t index, mptl_counts *counts) {
  uint32_t words[MPTL_WIDE] = {0};
  if (s.grid.way == MPTL_ROUND_BITS && s.grid.mode == MPTL_STOCHASTIC) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n) words[k] = mptl_random_u32(s.key, index + k, 0);
  }
  mptl_round_words<false>(x, n, s.grid, words, s.key, index, counts);
}

#endif
