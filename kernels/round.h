/* Rounding binary32 to a format FP(e,m,b), encoding and decoding: the one scalar definition, for C
 * and CUDA (method.md 2).
 *
 * Below 2^emin the values of a format are the multiples of 2^(emin-m), above it floating-point
 * numbers of m+1 bits. A value is rounded once, directly from its binary32 bits, by integer
 * arithmetic. Overflow is decided after rounding with an unlimited exponent. mptl_rounder_init
 * (engine/include/mptl/round.h) fills in the rounder. The vector versions in kernels/cpu/isa equal
 * these functions bit for bit, including NaN payloads and statistics.
 *
 * Ties: nearest_even takes the neighbour whose last bit is 0. With m = 0 the last bit of all normal
 * numbers is 1; then the larger magnitude is taken (IEEE 754-2019, 4.3.1). Of 0 and the smallest
 * value, 0 is the even one.
 */
#ifndef MPTL_KERNELS_ROUND_H
#define MPTL_KERNELS_ROUND_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernels/random.h"
#include "mptl/format.h"

typedef enum mptl_rounding_mode {
  MPTL_NEAREST_EVEN,
  MPTL_NEAREST_AWAY,
  MPTL_TOWARD_ZERO,
  MPTL_UP,         /* toward +infinity */
  MPTL_DOWN,       /* toward -infinity */
  MPTL_STOCHASTIC, /* up or down in magnitude, with probability proportional to the distance */
} mptl_rounding_mode;

typedef enum mptl_overflow {
  MPTL_SATURATE, /* overflows and infinities become the largest finite value */
  MPTL_INF,      /* overflows become infinity, infinities stay */
} mptl_overflow;

/* Statistics of rounding an array. Zero them before the first use; mptl_stats_merge adds two of
 * them. */
typedef struct mptl_round_stats {
  uint64_t elements;
  uint64_t underflow; /* not zero before, zero after */
  uint64_t overflow;  /* finite before, beyond the largest finite value after rounding */
  uint64_t inf_in;    /* infinities before rounding */
  uint64_t nan_in;    /* NaNs before rounding */
  float max_abs;      /* largest finite magnitude before rounding */
} mptl_round_stats;

/* A format, a mode and an overflow rule, and what rounding needs to know of them. Fields named
 * _bits are binary32 patterns without sign. */
typedef struct mptl_rounder {
  mptl_format format;
  mptl_rounding_mode mode;
  mptl_overflow overflow;
  int32_t emin;      /* exponent of the smallest normal value, 1 - B */
  int32_t m;         /* mantissa bits */
  uint32_t max_bits; /* largest finite value */
  uint32_t
      min_bits; /* smallest positive value; 1, binary32's smallest, if the format's is smaller */
  uint32_t over_bits; /* what overflows and infinities become: max_bits, or infinity */
  uint32_t up_above;  /* below min_bits: larger magnitudes than this become min_bits (not in the
                         stochastic mode) */
  uint32_t code_sign; /* sign bit of a code, 2^(e+m) */
  uint32_t max_code;  /* code of max_bits */
  uint32_t inf_code;  /* code of infinity; max_code if the format has none */
  uint32_t nan_code;  /* code written for NaN; max_code if the format has none */
  bool has_infinity, has_nan;
  bool is_identity; /* rounding changes nothing except signalling NaNs */
  bool is_regular;  /* emin >= -126: all normal values of the format are normal in binary32 */
  bool has_halves;  /* at most 8 bits, and all values are normal in binary32; then halves is set */
  uint16_t halves[128]; /* by code without sign: upper half of the binary32 pattern; the lower half
                           is zero */
} mptl_rounder;

/* What happened to one element: one of these, or 0. */
enum { MPTL_EVENT_UNDERFLOW = 1, MPTL_EVENT_OVERFLOW = 2, MPTL_EVENT_INF = 4, MPTL_EVENT_NAN = 8 };

#define MPTL_F32_SIGN 0x80000000u
#define MPTL_F32_INF 0x7f800000u
#define MPTL_F32_QUIET 0x00400000u
#define MPTL_F32_IMPLICIT 0x00800000u
#define MPTL_F32_ONE 0x3f800000u

static inline MPTL_HD uint32_t mptl_f32_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline MPTL_HD float mptl_bits_f32(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* The parts of a magnitude 0 < a < infinity: a = sig * 2^q, and the spacing of the format at a is
 * 2^(q + drop). */
typedef struct mptl_parts {
  uint32_t sig;
  int32_t exponent; /* floor(log2 a), but at least emin */
  int32_t drop; /* bits of sig below the format's last place; <= 0 if a is a value of the format's
                   grid */
} mptl_parts;

static inline MPTL_HD mptl_parts mptl_take_apart(uint32_t a, const mptl_rounder *r) {
  mptl_parts p;
  int32_t field = (int32_t)(a >> 23), q = (field ? field : 1) - 150;
  p.sig = (a & (MPTL_F32_IMPLICIT - 1)) | (field ? MPTL_F32_IMPLICIT : 0);
  p.exponent = field - 127;
  if (field == 0) { /* a subnormal: the exponent of its leading bit */
    p.exponent = -149;
    while (p.sig >> (p.exponent + 149) > 1) p.exponent++;
  }
  if (p.exponent < r->emin) p.exponent = r->emin;
  p.drop = p.exponent - r->m - q;
  return p;
}

/* Whether rest * 2^-drop, a fraction below 1, is rounded up: if it is larger than a 64-bit random
 * fraction (method.md 2.5). The upper half of the random fraction is `word`. Its lower half, the
 * word of plane 1 at index, is computed only if the upper half does not decide (never for drop <=
 * 32). rest is cut to a multiple of 2^-64: a magnitude below 2^-64 of the format's spacing is never
 * rounded up. */
static inline MPTL_HD bool mptl_stochastic_up(uint32_t rest, int32_t drop, uint32_t word,
                                              mptl_key key, uint64_t index) {
  if (drop <= 32) return word < (uint64_t)rest << (32 - drop);
  uint32_t high = drop < 64 ? rest >> (drop - 32) : 0;
  if (word != high) return word < high;
  uint32_t low = drop <= 64  ? (uint32_t)((uint64_t)rest << (64 - drop))
                 : drop < 96 ? rest >> (drop - 64)
                             : 0;
  return mptl_random_u32(key, index, 1) < low;
}

/* Rounds a finite magnitude above 0 with an unlimited exponent; 2^128 becomes the pattern of
 * infinity. For word, see mptl_round_bits_word. */
static inline MPTL_HD uint32_t mptl_round_magnitude(uint32_t a, bool negative,
                                                    const mptl_rounder *r, uint32_t word,
                                                    mptl_key key, uint64_t index) {
  mptl_parts p = mptl_take_apart(a, r);
  if (p.drop <= 0) return a;
  uint32_t mask = p.drop < 32 ? (1u << p.drop) - 1 : 0xffffffffu;
  uint32_t rest = p.sig & mask, half = mask / 2 + 1;
  bool odd = p.drop < 24 && (p.sig >> p.drop & 1), up = false;
  switch (r->mode) {
    case MPTL_NEAREST_EVEN:
      up = rest > half || (rest == half && odd);
      break;
    case MPTL_NEAREST_AWAY:
      up = rest >= half;
      break;
    case MPTL_TOWARD_ZERO:
      break;
    case MPTL_UP:
      up = rest != 0 && !negative;
      break;
    case MPTL_DOWN:
      up = rest != 0 && negative;
      break;
    case MPTL_STOCHASTIC:
      up = mptl_stochastic_up(rest, p.drop, word, key, index);
      break;
  }
  if (p.drop > 23) return up ? r->min_bits : 0; /* between 0 and the smallest value */
  return (a & ~mask) + (up ? mask + 1 : 0);     /* a carry increases the exponent, as it should */
}

/* Applies the overflow rule to a magnitude above 0 that was rounded with an unlimited exponent.
 * Returns the pattern, and sets *event to what happened. */
static inline MPTL_HD uint32_t mptl_deliver_magnitude(uint32_t rounded, uint32_t sign,
                                                      const mptl_rounder *r, uint32_t *event) {
  *event = rounded == 0 ? MPTL_EVENT_UNDERFLOW : 0;
  if (rounded <= r->max_bits) return sign | rounded;
  if (r->mode == MPTL_TOWARD_ZERO || (r->mode == MPTL_UP && sign) ||
      (r->mode == MPTL_DOWN && !sign))
    return sign | r->max_bits;
  *event = MPTL_EVENT_OVERFLOW;
  return sign | r->over_bits;
}

/* Rounds the binary32 pattern u. word is mptl_random_u32(key, index, 0) in the stochastic mode and
 * not used otherwise. *event is set to what happened, or 0. */
static inline MPTL_HD uint32_t mptl_round_bits_word(uint32_t u, const mptl_rounder *r,
                                                    uint32_t word, mptl_key key, uint64_t index,
                                                    uint32_t *event) {
  uint32_t a = u & ~MPTL_F32_SIGN, sign = u & MPTL_F32_SIGN;
  *event = 0;
  if (a > MPTL_F32_INF) {
    *event = MPTL_EVENT_NAN;
    return u | MPTL_F32_QUIET;
  }
  if (a == MPTL_F32_INF) {
    *event = MPTL_EVENT_INF;
    return sign | r->over_bits;
  }
  if (a == 0) return sign;
  return mptl_deliver_magnitude(mptl_round_magnitude(a, sign != 0, r, word, key, index), sign, r,
                                event);
}

/* Rounds the binary32 pattern u, which is element `index` of the tensor whose random bits key
 * selects. */
static inline MPTL_HD uint32_t mptl_round_bits(uint32_t u, const mptl_rounder *r, mptl_key key,
                                               uint64_t index, uint32_t *event) {
  uint32_t word = r->mode == MPTL_STOCHASTIC ? mptl_random_u32(key, index, 0) : 0;
  return mptl_round_bits_word(u, r, word, key, index, event);
}

/* Counts one element. u: its pattern before rounding; event: as set by mptl_round_bits. */
static inline MPTL_HD void mptl_count(mptl_round_stats *stats, uint32_t u, uint32_t event) {
  uint32_t a = u & ~MPTL_F32_SIGN;
  stats->elements++;
  stats->underflow += event == MPTL_EVENT_UNDERFLOW;
  stats->overflow += event == MPTL_EVENT_OVERFLOW;
  stats->inf_in += event == MPTL_EVENT_INF;
  stats->nan_in += event == MPTL_EVENT_NAN;
  if (a < MPTL_F32_INF && a > mptl_f32_bits(stats->max_abs)) stats->max_abs = mptl_bits_f32(a);
}

static inline MPTL_HD void mptl_stats_merge(mptl_round_stats *stats, const mptl_round_stats *more) {
  stats->elements += more->elements;
  stats->underflow += more->underflow;
  stats->overflow += more->overflow;
  stats->inf_in += more->inf_in;
  stats->nan_in += more->nan_in;
  if (more->max_abs > stats->max_abs) stats->max_abs = more->max_abs;
}

/* The code of a pattern that mptl_round_bits returned: sign, exponent field, mantissa field, from
 * bit e+m down. */
static inline MPTL_HD uint32_t mptl_encode_bits(uint32_t u, const mptl_rounder *r) {
  uint32_t a = u & ~MPTL_F32_SIGN, sign = u & MPTL_F32_SIGN ? r->code_sign : 0;
  if (a == 0) return sign;
  if (a == MPTL_F32_INF) return sign | r->inf_code;
  if (a > MPTL_F32_INF) return sign | r->nan_code;
  mptl_parts p = mptl_take_apart(a, r);
  uint32_t digits = p.drop > 0 ? p.sig >> p.drop : p.sig << -p.drop;
  return sign | (((uint32_t)(p.exponent - r->emin) << r->m) +
                 digits); /* the leading bit adds 1 to the exponent field */
}

/* The binary32 pattern of a code; bits above the format's are ignored. A value finer than
 * binary32's grid, which no rounded value is, is rounded toward zero. */
static inline MPTL_HD uint32_t mptl_decode_code(uint32_t code, const mptl_rounder *r) {
  uint32_t sign = code & r->code_sign ? MPTL_F32_SIGN : 0, magnitude = code & (r->code_sign - 1);
  if (magnitude > r->max_code) {
    if (r->has_infinity && magnitude == r->inf_code) return sign | MPTL_F32_INF;
    return sign | MPTL_F32_INF | MPTL_F32_QUIET;
  }
  uint32_t field = magnitude >> r->m, sig = magnitude - (field ? (field - 1) << r->m : 0);
  int32_t exponent =
      (field ? (int32_t)field - 1 : 0) + r->emin - r->m; /* the value is sig * 2^exponent */
  if (sig == 0) return sign;
  while (sig < MPTL_F32_IMPLICIT) { /* normalize to 24 bits */
    sig <<= 1;
    exponent--;
  }
  if (exponent < -149) { /* a binary32 subnormal */
    int32_t shift = -149 - exponent;
    return sign | (shift < 24 ? sig >> shift : 0);
  }
  return sign | (((uint32_t)(exponent + 149) << 23) + sig);
}

#endif
