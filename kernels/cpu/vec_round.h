/* The vector version of kernels/round.h, equal to it bit for bit, for regular formats (all normal
 * values are normal in binary32).
 *
 * Rounding adds to the bit pattern and masks it; a carry increases the exponent. For magnitudes
 * below the format's smallest value even the leading bit is dropped, so they are rounded by a
 * comparison. Nearest even has faster methods. Vectors with overflows, infinities or NaNs take a
 * branch.
 */
#ifndef MPTL_KERNELS_CPU_VEC_ROUND_H
#define MPTL_KERNELS_CPU_VEC_ROUND_H

#include "kernels/cpu/vec.h"
#include "kernels/round.h"

#if MPTL_VEC

/* Counts in each lane. They are correct for fewer than 2^32 vectors: 128 GiB in one loop. */
typedef struct vec_stats {
  vu underflow, overflow, inf_in, nan_in, max_abs;
} vec_stats;

static inline vec_stats vec_stats_zero(void) {
  vu zero = v_set(0);
  return (vec_stats){zero, zero, zero, zero, zero};
}

static inline uint64_t vec_sum(vu x) {
  uint32_t lanes[VN];
  uint64_t sum = 0;
  v_store(lanes, x);
  for (int i = 0; i < VN; i++) sum += lanes[i];
  return sum;
}

static inline uint32_t vec_largest(vu x) {
  uint32_t lanes[VN], largest = 0;
  v_store(lanes, x);
  for (int i = 0; i < VN; i++) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

static inline void vec_stats_add(mptl_round_stats *stats, const vec_stats *v, uint64_t elements) {
  mptl_round_stats more = {
      elements,           vec_sum(v->underflow), vec_sum(v->overflow),
      vec_sum(v->inf_in), vec_sum(v->nan_in),    mptl_bits_f32(vec_largest(v->max_abs))};
  mptl_stats_merge(stats, &more);
}

/* The fraction that each lane drops, as a bound for 32 random bits: smaller words round up. *open
 * is set to the lanes that these bits do not decide: fractions of more than 32 bits whose first 32
 * equal the word. */
static inline vu vec_stochastic_bound(vu sig, vu drop, vu word, vm *open) {
  vu c32 = v_set(32), short_of = v_sub(c32, drop), over = v_sub(drop, c32);
  vu bound = v_or(v_shlv(sig, short_of),
                  v_shrv(sig, over)); /* one of the two is 0, or drop is 32 and they are equal */
  *open = v_both(v_gt(drop, c32), v_eq(word, bound));
  return bound;
}

/* How magnitudes below the smallest normal value are rounded. */
typedef enum vec_small {
  SMALL_BITS, /* on the bit pattern, with a bit shift for each lane: any mode, any regular format */
  SMALL_LINEAR, /* nearest even, like normal values: emin is binary32's */
  /* nearest even, by adding 2^(emin-m+23): the addition rounds to the format's spacing */
  SMALL_MAGIC,
  SMALL_SCALE, /* stochastic, in units of the smallest value: integer and fraction are exact in
                  binary32 */
} vec_small;

/* The power of two for SMALL_MAGIC; 0 if it, or the format's smallest value, is not normal in
 * binary32. */
static inline uint32_t vec_magic(const mptl_rounder *r) {
  int smallest = r->emin - r->m;
  return smallest > -126 && smallest + 23 <= 127 ? (uint32_t)(smallest + 23 + 127) << 23 : 0;
}

/* The fastest method for a rounder. Modes other than nearest even need SMALL_BITS (or SMALL_SCALE),
 * and so does m = 0, where every normal number is odd. */
static inline vec_small vec_small_for(const mptl_rounder *r) {
#ifdef MPTL_VEC_UNSIGNED
  if (r->mode == MPTL_STOCHASTIC && r->emin - r->m >= -126 && r->emin - r->m <= 0)
    return SMALL_SCALE;
#endif
  if (r->mode != MPTL_NEAREST_EVEN || r->m == 0) return SMALL_BITS;
  if (r->emin == -126) return SMALL_LINEAR;
  /* The power of two in vec_magnitude_finite must be a binary32 number, larger than the value. */
  uint32_t drop = (uint32_t)(23 - r->m);
  return vec_magic(r) && drop > 0 && (r->max_bits >> 23) + drop < 255 ? SMALL_MAGIC : SMALL_BITS;
}

/* mptl_round_magnitude on bit patterns. sign is 0 or the sign bit; *open is as in
 * vec_stochastic_bound. For infinities and NaNs the results are not zero and otherwise
 * meaningless. */
static inline __attribute__((always_inline)) vu vec_magnitude_bits(vu a, vu sign, vu word,
                                                                   const mptl_rounder *r,
                                                                   const mptl_rounding_mode mode,
                                                                   vm *open) {
  const vu zero = v_set(0), one = v_set(1), implicit = v_set(MPTL_F32_IMPLICIT),
           below_implicit = v_set(MPTL_F32_IMPLICIT - 1);
  const vu min_field = v_set((uint32_t)(r->emin + 127)), min_bits = v_set(r->min_bits);
  vm positive = v_eq(sign, zero), negative = v_gt(zero, sign);
  vu field = v_max(v_shr(a, 23), one);
  vu drop = v_add(v_max(v_sub(min_field, field), zero), v_set((uint32_t)(23 - r->m)));
  vu mask = v_sub(v_shlv(one, drop), one);
  vu sig = zero, add = zero;
  vm up = v_gt(a, v_set(r->up_above)); /* whether a magnitude below min_bits becomes min_bits */
  if (mode == MPTL_NEAREST_EVEN || mode == MPTL_STOCHASTIC)
    sig = v_or(v_and(a, below_implicit), v_keep(v_gt(a, below_implicit), implicit));
  switch (mode) {
    case MPTL_NEAREST_EVEN:
      add = v_and(v_add(v_shr(mask, 1), v_and(v_shrv(sig, drop), one)), mask);
      break;
    case MPTL_NEAREST_AWAY:
      add = v_sub(mask, v_shr(mask, 1));
      break;
    case MPTL_TOWARD_ZERO:
      break;
    case MPTL_UP:
      add = v_select(negative, zero, mask);
      up = v_both(up, positive);
      break;
    case MPTL_DOWN:
      add = v_keep(negative, mask);
      up = v_both(up, negative);
      break;
    case MPTL_STOCHASTIC:
      add = v_shrv(v_xor(word, v_set(~0u)), v_sub(v_set(32), drop));
      up = v_lt_unsigned(word, vec_stochastic_bound(sig, drop, word, open));
      break;
  }
  return v_select(v_gt(min_bits, a), v_keep(up, min_bits), v_andnot(mask, v_add(a, add)));
}

/* mptl_round_magnitude to nearest even for m > 0, by the fast methods SMALL_LINEAR and
 * SMALL_MAGIC. */
static inline __attribute__((always_inline)) vu vec_magnitude_even(vu a, const mptl_rounder *r,
                                                                   const vec_small small) {
  const unsigned drop = (unsigned)(23 - r->m);
  const uint32_t mask = (1u << drop) - 1;
  vu last = v_and(v_shr(a, drop), v_set(drop ? 1 : 0));
  vu rounded = v_andnot(v_set(mask), v_add(v_add(a, v_set(mask >> 1)), last));
  if (small == SMALL_LINEAR) return rounded;
  const vu magic = v_set(vec_magic(r));
  return v_select(v_gt(v_set((uint32_t)(r->emin + 127) << 23), a), v_fsub(v_fadd(a, magic), magic),
                  rounded);
}

/* The same for magnitudes up to the largest value. SMALL_MAGIC rounds all of them by adding a power
 * of two: 2^(23-m) times the value's own power of two, or times 2^emin if that is larger. */
static inline __attribute__((always_inline)) vu vec_magnitude_finite(vu a, const mptl_rounder *r,
                                                                     const vec_small small) {
  if (small == SMALL_LINEAR) return vec_magnitude_even(a, r, small);
  vu power = v_add(v_and(a, v_set(MPTL_F32_INF)), v_set((uint32_t)(23 - r->m) << 23)),
     added = v_max(power, v_set(vec_magic(r)));
  return v_fsub(v_fadd(a, added), added);
}

/* The same, but to the code without sign. The sum's last bits are the magnitude in units of its
 * spacing, with its leading bit; the code adds 2^m for each power of two above the smallest normal
 * value. */
static inline __attribute__((always_inline)) vu vec_code_finite(vu a, const mptl_rounder *r,
                                                                const vec_small small) {
  const unsigned drop = (unsigned)(23 - r->m);
  if (small == SMALL_LINEAR) {
    const uint32_t half = ((1u << drop) - 1) >> 1;
    vu last = v_and(v_shr(a, drop), v_set(drop ? 1 : 0));
    return v_shr(v_add(v_add(a, v_set(half)), last), drop);
  }
  vu above = v_sub_halves(v_and(a, v_set(MPTL_F32_INF)), v_set((uint32_t)(r->emin + 127) << 23)),
     added = v_add(above, v_set(vec_magic(r)));
  return v_add(v_sub(v_fadd(a, added), added), v_shr(above, drop));
}

#ifdef MPTL_VEC_UNSIGNED
/* mptl_round_magnitude in the stochastic mode, by SMALL_SCALE. *open is as in
 * vec_stochastic_bound. */
static inline __attribute__((always_inline)) vu vec_magnitude_stochastic(vu a, vu word,
                                                                         const mptl_rounder *r,
                                                                         vm *open) {
  const unsigned drop = (unsigned)(23 - r->m);
  const uint32_t mask = (1u << drop) - 1, unit = (uint32_t)(r->emin - r->m + 127) << 23;
  vu normal = v_andnot(v_set(mask), v_add(a, v_shr(v_xor(word, v_set(~0u)), 32 - drop)));
  vu units = v_fmul(a, v_set((uint32_t)(127 - r->emin + r->m) << 23)), whole = v_ffloor(units);
  vu bound = v_unsigned(v_fmul(v_fsub(units, whole), v_set((127 + 32) << 23)));
  /* More than 32 bits of fraction: below 2^-9 units. */
  *open = v_both(v_eq(word, bound), v_gt(v_set(unit > (9u << 23) ? unit - (9u << 23) : 0), a));
  vu up = v_keep(v_lt_unsigned(word, bound), v_set(MPTL_F32_ONE));
  vu small = v_fmul(v_fadd(whole, up), v_set(unit));
  return v_select(v_gt(v_set((uint32_t)(r->emin + 127) << 23), a), small, normal);
}
#endif

/* Finishes and counts VN lanes, some of which exceed the largest value or are infinite or NaN. */
static inline __attribute__((always_inline)) vu vec_finish_special(vu a, vu sign, vu rounded,
                                                                   const mptl_rounder *r,
                                                                   const mptl_rounding_mode mode,
                                                                   vec_stats *stats) {
  const vu zero = v_set(0), inf = v_set(MPTL_F32_INF), max_bits = v_set(r->max_bits),
           over_bits = v_set(r->over_bits);
  vm finite = v_gt(inf, a), infinite = v_eq(a, inf), nan = v_gt(a, inf),
     over = v_gt(rounded, max_bits);
  stats->inf_in = v_count(stats->inf_in, infinite);
  stats->nan_in = v_count(stats->nan_in, nan);
  stats->max_abs = v_max(stats->max_abs, v_keep(finite, a));
  if (mode == MPTL_TOWARD_ZERO || mode == MPTL_UP || mode == MPTL_DOWN) {
    rounded = v_select(over, max_bits, rounded);
    over = mode == MPTL_TOWARD_ZERO
               ? v_gt(zero, zero)
               : v_both(over, mode == MPTL_UP ? v_eq(sign, zero) : v_gt(zero, sign));
  }
  stats->overflow = v_count(stats->overflow, v_both(over, finite));
  rounded = v_select(over, over_bits, rounded);
  rounded = v_select(infinite, over_bits, rounded);
  return v_select(nan, v_or(a, v_set(MPTL_F32_QUIET)), rounded);
}

static inline __attribute__((always_inline)) void vec_count_underflow(vu a, vu rounded,
                                                                      vec_stats *stats) {
  stats->underflow = v_count(stats->underflow, v_both(v_eq(rounded, v_set(0)), v_gt(a, v_set(0))));
}

/* Rounds the VN patterns u to *magnitude, without sign. mode and small are constants where this is
 * inlined, so that the compiler keeps only their case. word: the random bits of the lanes
 * (stochastic mode). Returns false, and counts nothing, if a lane needs a second random word: the
 * caller then runs the scalar definition on these lanes. */
static inline __attribute__((always_inline)) bool vec_round(vu *magnitude, vu u, vu word,
                                                            const mptl_rounder *r,
                                                            const mptl_rounding_mode mode,
                                                            const vec_small small,
                                                            vec_stats *stats) {
  const vu zero = v_set(0);
  vu a = v_and(u, v_set(~MPTL_F32_SIGN)), sign = v_and(u, v_set(MPTL_F32_SIGN)), rounded;
  vm open = v_gt(zero, zero);
#ifdef MPTL_VEC_UNSIGNED
  if (small == SMALL_SCALE)
    rounded = vec_magnitude_stochastic(a, word, r, &open);
  else
#endif
    rounded = small == SMALL_BITS ? vec_magnitude_bits(a, sign, word, r, mode, &open)
                                  : vec_magnitude_even(a, r, small);
  /* max_bits is a value of the format, so no smaller magnitude rounds beyond it. */
  vm special = v_gt(a, v_set(r->max_bits));
  if (v_any(mode == MPTL_STOCHASTIC ? v_either(special, open) : special)) {
    if (mode == MPTL_STOCHASTIC && v_any(open)) return false;
    vec_count_underflow(a, rounded, stats);
    rounded = vec_finish_special(a, sign, rounded, r, mode, stats);
  } else {
    vec_count_underflow(a, rounded, stats);
    stats->max_abs = v_max(stats->max_abs, a);
  }
  *magnitude = rounded;
  return true;
}

/* The codes, without sign, of VN magnitudes that vec_round returned. */
static inline vu vec_encode_magnitude(vu a, const mptl_rounder *r, uint32_t magic) {
  const unsigned normal_drop = (unsigned)(23 - r->m);
  const uint32_t min_field = (uint32_t)(r->emin + 127);
  vu code = v_sub(v_shr(a, normal_drop), v_set((min_field - 1) << r->m));
  if (min_field > 1) { /* below the smallest normal value the code counts units of the smallest */
    vu units;
    if (magic) {
      units = v_sub(v_fadd(a, v_set(magic)), v_set(magic));
    } else {
      vu field = v_max(v_shr(a, 23), v_set(1)), drop = v_sub(v_set(min_field + normal_drop), field);
      vu below_implicit = v_set(MPTL_F32_IMPLICIT - 1);
      vu sig =
          v_or(v_and(a, below_implicit), v_keep(v_gt(a, below_implicit), v_set(MPTL_F32_IMPLICIT)));
      units = v_shrv(sig, drop);
    }
    code = v_select(v_gt(v_set(min_field << 23), a), units, code);
  }
  if (v_any(v_gt(a, v_set(r->max_bits)))) {
    code = v_select(v_eq(a, v_set(MPTL_F32_INF)), v_set(r->inf_code), code);
    code = v_select(v_gt(a, v_set(MPTL_F32_INF)), v_set(r->nan_code), code);
  }
  return code;
}

/* Whether vec_decode can decode the format: its subnormal values are those of binary32, or normal
 * in binary32; and 2^emin, which vec_decode subtracts, is a binary32 number. (It is 2^128 for
 * FP(1,m,-127), whose finite values are all subnormal.) */
static inline bool vec_decodes(const mptl_rounder *r) {
  return r->emin == -126 || (r->is_regular && r->emin - r->m >= -126 && r->emin <= 127);
}

/* Decodes codes. Bits above a code are ignored; signed_code: they equal its sign. */
static inline vu vec_decode(vu code, const mptl_rounder *r, const bool signed_code) {
  const unsigned bits = (unsigned)(r->format.e + r->format.m), drop = (unsigned)(23 - r->m);
  vu magnitude = v_and(v_shl(code, drop), v_set((r->code_sign - 1) << drop));
  vu value = v_add(magnitude, v_set((uint32_t)(r->emin + 126) << 23));
  if (r->emin != -126) /* 2 value - 2^emin is less than value, and right, for subnormal values: they
                          have no leading bit, but are normal in binary32 */
    value = v_min(value, v_fmsub(value, v_set(MPTL_F32_ONE + MPTL_F32_IMPLICIT),
                                 v_set((uint32_t)(r->emin + 127) << 23)));
  if (r->max_code < r->code_sign - 1) { /* some codes are infinity or NaN */
    vu special = v_set(MPTL_F32_INF | MPTL_F32_QUIET);
    if (r->has_infinity)
      special = v_select(v_eq(magnitude, v_set(r->inf_code << drop)), v_set(MPTL_F32_INF), special);
    value = v_select(v_gt(magnitude, v_set(r->max_code << drop)), special, value);
  }
  return v_or_and(value, signed_code ? code : v_shl(code, 31 - bits), v_set(MPTL_F32_SIGN));
}

static inline void vec_philox_round(vu c[4], vu m0, vu m1, vu k0, vu k1) {
  vu p0 = v64_mul_low(c[0], m0), p1 = v64_mul_low(c[2], m1);
  c[0] = v_xor3(v64_high(p1), c[1], k0);
  c[1] = p1;
  c[2] = v_xor3(v64_high(p0), c[3], k1);
  c[3] = p0;
}

/* How many words vec_random computes, and how many vectors of them side by side, because each
 * vector is a long chain of multiplications. */
enum { VEC_WORDS = 128, VEC_CHAINS = VN / 8 };

/* out[i] = mptl_random_u32(key, index + i, 0); index is a multiple of VEC_WORDS. Counters are in
 * 64-bit lanes, even ones in one register and odd ones in another, so that products need no
 * shuffles. The upper halves of lanes are never read. */
static inline void vec_random(uint32_t out[VEC_WORDS], mptl_key key, uint64_t index) {
  static const uint64_t evens[8] = {0, 2, 4, 6, 8, 10, 12, 14};
  const vu m0 = v64_set(0xD2511F53u), m1 = v64_set(0xCD9E8D57u);
  const uint64_t first =
      index / 64 * 16; /* of 32 counters; adding to it never carries into the upper half */
  vu even[VEC_CHAINS][4], odd[VEC_CHAINS][4];
  for (uint32_t j = 0; j < VEC_WORDS / 4; j += VEC_CHAINS * VN) {
    for (uint32_t c = 0; c < VEC_CHAINS; c++) {
      even[c][0] = v64_add(v64_set((uint32_t)first + j + c * VN), v_load(evens));
      odd[c][0] = v64_add(even[c][0], v64_set(1));
      even[c][1] = odd[c][1] = v64_set(first >> 32);
      even[c][2] = odd[c][2] = v64_set(key.stream);
      even[c][3] = odd[c][3] = v64_set(key.step);
    }
    uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
      for (uint32_t c = 0; c < VEC_CHAINS; c++) {
        vec_philox_round(even[c], m0, m1, v64_set(k0), v64_set(k1));
        vec_philox_round(odd[c], m0, m1, v64_set(k0), v64_set(k1));
      }
    }
    for (uint32_t c = 0; c < VEC_CHAINS; c++) {
      uint32_t counter = j + c * VN, *words = out + counter / 16 * 64 + counter % 16;
      for (int w = 0; w < 4; w++) v_store(words + 16 * w, v64_join(even[c][w], odd[c][w]));
    }
  }
}

#endif
#endif
