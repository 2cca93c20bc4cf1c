/* Vectors of eight elements in a thread: decoding, encoding, random bits, rounding with counts.
 *
 * kernels/round.h defines rounding; it is compiled for the device. Rounding to nearest even,
 * encoding and decoding in the usual formats also have quicker code. Specs check that it gives the
 * same bits.
 */
#ifndef MPTL_KERNELS_CUDA_VECTORS_H
#define MPTL_KERNELS_CUDA_VECTORS_H

#include "kernels/cuda/operands.h"

MPTL_DEVICE unsigned mptl_lane(void) { return threadIdx.x & 31u; }

/* ---- Codes ---- */

/* A rounder with the fields that kernels/round.h reads, without its table. */
MPTL_DEVICE mptl_rounder mptl_rounder_of(const mptl_grid &g) {
  mptl_rounder r;
  r.mode = (mptl_rounding_mode)g.mode;
  r.emin = g.emin, r.m = g.m;
  r.max_bits = g.max_bits, r.min_bits = g.min_bits, r.over_bits = g.over_bits;
  r.code_sign = g.code_sign, r.max_code = g.max_code, r.inf_code = g.inf_code,
  r.nan_code = g.nan_code;
  r.has_infinity = g.has_infinity, r.has_nan = g.has_nan;
  return r;
}

/* The definition, not inlined: copies for every element of a vector would be most of a kernel's
 * code. */
static __device__ MPTL_NOINLINE uint32_t mptl_decode_slowly(uint32_t code, const mptl_grid *g) {
  mptl_rounder r = mptl_rounder_of(*g);
  return mptl_decode_code(code, &r);
}

static __device__ MPTL_NOINLINE uint32_t mptl_encode_slowly(uint32_t u, const mptl_grid *g) {
  mptl_rounder r = mptl_rounder_of(*g);
  return mptl_encode_bits(u, &r);
}

/* Returns the rounded bits, and the event in the upper half. */
static __device__ MPTL_NOINLINE uint64_t mptl_round_slowly(uint32_t u, const mptl_grid *g,
                                                           uint32_t word, mptl_key key,
                                                           uint64_t index) {
  uint32_t event;
  mptl_rounder r = mptl_rounder_of(*g);
  uint32_t rounded = mptl_round_bits_word(u, &r, word, key, index, &event);
  return (uint64_t)event << 32 | rounded;
}

/* The same as mptl_decode_code. */
MPTL_DEVICE uint32_t mptl_decode(uint32_t code, const mptl_grid &g) {
  uint32_t magnitude = code & (g.code_sign - 1);
  if (g.quick_decode && magnitude <= g.max_code)
    return __float_as_uint(__uint_as_float(magnitude << (23 - g.m)) * g.scale) |
           (code & g.code_sign) << g.sign_shift;
  return mptl_decode_slowly(code, &g);
}

/* The same as mptl_encode_bits. */
MPTL_DEVICE uint32_t mptl_encode(uint32_t u, const mptl_grid &g) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  if (g.quick_encode && a <= g.max_bits) {
    uint32_t code = (a >> (23 - g.m)) - ((uint32_t)(g.emin + 126) << g.m);
    if (a < g.small_below)
      code = __float_as_uint(__uint_as_float(a) + g.magic) - __float_as_uint(g.magic);
    return code | (u & MPTL_F32_SIGN) >> g.sign_shift;
  }
  return mptl_encode_slowly(u, &g);
}

/* Kernels have a PLAIN form beside the general one, for the usual cases, which must be fast. It
 * needs whole, aligned vectors; binary32, or codes of one or two bytes in formats with quick
 * decoding and encoding; rounding to nearest even or none (MPTL_ROUND_KEEP, MPTL_ROUND_EVEN,
 * MPTL_ROUND_NOT); and no exponent counts. mptl_is_plain returns whether an operand meets this. */

/* Decodes a vector of codes, EACH of them in a word. */
template <bool PLAIN, int EACH>
MPTL_DEVICE void mptl_decode_wide(float *x, const uint32_t *words, const mptl_grid &g) {
  uint32_t special = !PLAIN && !g.quick_decode;
#pragma unroll
  for (int w = 0; w < MPTL_WIDE / EACH; w++)
    special |= ((words[w] & g.magnitudes) + g.past_max) & g.signs;
  if (special == 0) {
#pragma unroll
    for (int k = 0; k < MPTL_WIDE; k++) {
      uint32_t code = words[k / EACH] >> k % EACH * (32 / EACH);
      uint32_t a =
          __float_as_uint(__uint_as_float((code & (g.code_sign - 1)) << (23 - g.m)) * g.scale);
      x[k] = __uint_as_float(a | (code & g.code_sign) << g.sign_shift);
    }
    return;
  }
  float slow[MPTL_WIDE];
  uint32_t again[MPTL_WIDE / EACH]; /* a copy, so that words stay in registers */
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

/* The bit pattern of the largest magnitude of a vector. */
MPTL_DEVICE uint32_t mptl_largest_of(const float *x) {
  uint32_t largest = 0;
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t a = __float_as_uint(x[k]) & ~MPTL_F32_SIGN;
    largest = a > largest ? a : largest;
  }
  return largest;
}

/* Encodes a vector of values of a grid, EACH of them in a word. within: it is known that no
 * magnitude is above the largest value. */
template <bool PLAIN, int EACH>
MPTL_DEVICE void mptl_encode_wide(uint32_t *words, const float *x, const mptl_grid &g,
                                  bool within) {
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

/* Permutes v[4]: element j becomes the old element j ^ q. */
MPTL_DEVICE void mptl_exchange(uint32_t *v, unsigned q) {
  uint32_t a = q & 1 ? v[1] : v[0], b = q & 1 ? v[0] : v[1], c = q & 1 ? v[3] : v[2],
           d = q & 1 ? v[2] : v[3];
  v[0] = q & 2 ? c : a, v[1] = q & 2 ? d : b, v[2] = q & 2 ? a : c, v[3] = q & 2 ? b : d;
}

/* words[k] = mptl_random_u32(key, index + k, 0). index is the lane's. The lanes of a warp have
 * adjacent vectors, and all lanes call.
 *
 * Eight lanes have 64 elements, whose words are the four words of 16 Philox counters. The four even
 * lanes of the eight need the same eight counters, each lane another word; so do the odd lanes. So
 * each lane computes two counters, and the lanes exchange words. */
MPTL_DEVICE void mptl_random_wide(uint32_t *words, mptl_key key, uint64_t index) {
  uint64_t first = index - (uint64_t)mptl_lane() * MPTL_WIDE; /* the same in all lanes */
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
    for (unsigned s = 0; s < 4; s++)
      got[s] = __shfl_xor_sync(0xffffffffu, v[s], s << 1); /* counter 2 (q ^ s) + c, word q */
    mptl_exchange(got, q);
#pragma unroll
    for (unsigned p = 0; p < 4; p++) words[2 * p + c] = got[p];
  }
}

/* ---- Rounding ---- */

/* A thread's counts for a sink. max is the bit pattern of a magnitude. */
typedef struct mptl_counts {
  uint32_t underflow, overflow, inf_in, nan_in, max;
} mptl_counts;

MPTL_DEVICE mptl_counts mptl_no_counts(void) {
  mptl_counts c = {0, 0, 0, 0, 0};
  return c;
}

/* Counts the event of a number u. */
MPTL_DEVICE void mptl_count_event(mptl_counts *counts, uint32_t u, uint32_t event) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  counts->underflow += event == MPTL_EVENT_UNDERFLOW;
  counts->overflow += event == MPTL_EVENT_OVERFLOW;
  counts->inf_in += event == MPTL_EVENT_INF;
  counts->nan_in += event == MPTL_EVENT_NAN;
  if (a < MPTL_F32_INF && a > counts->max) counts->max = a;
}

MPTL_DEVICE uint32_t mptl_round_one(uint32_t u, const mptl_grid &g, uint32_t word, mptl_key key,
                                    uint64_t index, mptl_counts *counts) {
  uint64_t both = mptl_round_slowly(u, &g, word, key, index);
  mptl_count_event(counts, u, (uint32_t)(both >> 32));
  return (uint32_t)both;
}

/* Rounds a magnitude up to the format's largest value to nearest even, and counts: small ones by
 * adding magic, larger ones in the bit pattern. */
MPTL_DEVICE uint32_t mptl_round_even(uint32_t a, const mptl_grid &g, mptl_counts *counts) {
  uint32_t drop = 23 - (uint32_t)g.m, mask = (1u << drop) - 1;
  uint32_t even = (a + (mask >> 1) + (mask ? a >> drop & 1 : 0)) & ~mask;
  uint32_t small = __float_as_uint((__uint_as_float(a) + g.magic) - g.magic),
           rounded = a < g.small_below ? small : even;
  counts->underflow += rounded == 0 && a != 0;
  counts->max = a > counts->max ? a : counts->max;
  return rounded;
}

/* Rounds a vector to nearest even, and counts underflows. No magnitude may be above the format's
 * largest value. Adds a power of two for which the last place of the sum is the last place of the
 * format. */
MPTL_DEVICE void mptl_round_even_wide(float *x, const mptl_grid &g, mptl_counts *counts) {
#pragma unroll
  for (int k = 0; k < MPTL_WIDE; k++) {
    uint32_t u = __float_as_uint(x[k]), a = u & ~MPTL_F32_SIGN, exponent = a & MPTL_F32_INF;
    float power =
        __uint_as_float((exponent > g.first_exponent ? exponent : g.first_exponent) + g.lift);
    counts->underflow += a - 1 < g.tie;
    x[k] = __uint_as_float(__float_as_uint((__uint_as_float(a) + power) - power) |
                           (u & MPTL_F32_SIGN));
  }
}

/* If the grid rounds: rounds the first n numbers of x in place, counts, and sets the others to 0.
 * index: of the first number. words: random bits of the numbers, read in the stochastic mode only.
 * Returns whether it is known that no result is above the largest value. */
template <bool PLAIN>
MPTL_DEVICE bool mptl_round_words(float *x, unsigned n, const mptl_grid &g, const uint32_t *words,
                                  mptl_key key, uint64_t index, mptl_counts *counts) {
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
          x[k] =
              __uint_as_float(mptl_round_even(u & ~MPTL_F32_SIGN, g, counts) | (u & MPTL_F32_SIGN));
        }
      }
      counts->max = largest > counts->max ? largest : counts->max;
      return true;
    }
  }
  float slow[MPTL_WIDE]; /* by the definition, in memory: these cases are rare or slow anyway */
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

/* The same for a warp whose lanes have adjacent vectors. All lanes call, some with n = 0: they
 * compute random bits together. */
template <bool PLAIN = false>
MPTL_DEVICE bool mptl_round_wide(float *x, unsigned n, const mptl_sink_arg &s, size_t i,
                                 mptl_counts *counts) {
  uint32_t words[MPTL_WIDE] = {0};
  if (!PLAIN && s.grid.way == MPTL_ROUND_BITS && s.grid.mode == MPTL_STOCHASTIC)
    mptl_random_wide(words, s.key, s.index0 + i);
  return mptl_round_words<PLAIN>(x, n, s.grid, words, s.key, s.index0 + i, counts);
}

/* The same for lanes with vectors anywhere. index: of the first element, for random bits. */
MPTL_DEVICE void mptl_round_anywhere(float *x, unsigned n, const mptl_sink_arg &s, uint64_t index,
                                     mptl_counts *counts) {
  uint32_t words[MPTL_WIDE] = {0};
  if (s.grid.way == MPTL_ROUND_BITS && s.grid.mode == MPTL_STOCHASTIC) {
#pragma unroll
    for (unsigned k = 0; k < MPTL_WIDE; k++)
      if (k < n) words[k] = mptl_random_u32(s.key, index + k, 0);
  }
  mptl_round_words<false>(x, n, s.grid, words, s.key, index, counts);
}

#endif
