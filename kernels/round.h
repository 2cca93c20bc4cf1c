/* Rounding binary32 to FP(e,m,b): the one scalar definition, for C and CUDA. (Lee, Sharma, Aiken, TMLR 2023, section 2.)
 *
 * The format's values are the grid of FP(e,m,b) as far as binary32 reaches. Everything is integer arithmetic on the bit pattern: with a
 * grid of d binary32 places below the input's last one, rounding adds something between 0 and 2^d - 1 and clears d bits, and the
 * carry goes into the exponent. One rounding, also for subnormal results.
 */
#ifndef MPTL_KERNELS_ROUND_H
#define MPTL_KERNELS_ROUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/random.h"
#include "mptl/format.h"

typedef enum mptl_rounding_mode {
  MPTL_NEAREST_EVEN,
  MPTL_NEAREST_AWAY,
  MPTL_TOWARD_ZERO,
  MPTL_UP,
  MPTL_DOWN,
  MPTL_STOCHASTIC,
} mptl_rounding_mode;

typedef enum mptl_overflow { MPTL_SATURATE, MPTL_INF } mptl_overflow;

/* Counts of a rounded array; zero to begin with. */
typedef struct mptl_round_stats {
  uint64_t elements;
  uint64_t underflow;      /* non-zeros that became zero */
  uint64_t overflow;       /* finite values beyond the largest finite one after rounding */
  uint64_t inf_in, nan_in; /* infinities and NaNs that came in */
  float max_abs;           /* largest finite magnitude that came in */
} mptl_round_stats;

static inline MPTL_HD void mptl_round_stats_add(mptl_round_stats *into, const mptl_round_stats *from) {
  into->elements += from->elements;
  into->underflow += from->underflow;
  into->overflow += from->overflow;
  into->inf_in += from->inf_in;
  into->nan_in += from->nan_in;
  if (from->max_abs > into->max_abs) into->max_abs = from->max_abs;
}

/* What rounding to a format needs, made by mptl_rounder_init. */
typedef struct mptl_rounder {
  mptl_format format;
  mptl_rounding_mode mode;
  mptl_overflow overflow;
  bool identity;      /* every binary32 value is its own rounding: fp32 */
  int emin;           /* exponent of the smallest normal value, 1 - B */
  uint32_t max_bits;  /* pattern of the largest finite value */
  uint32_t tiny_bits; /* pattern of the smallest subnormal; 0 when it is below binary32's */
} mptl_rounder;

static inline MPTL_HD uint32_t mptl_bits_of(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline MPTL_HD float mptl_float_of(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

/* Exponent of a finite non-zero magnitude pattern. */
static inline MPTL_HD int mptl_exponent(uint32_t a) {
  int e = (int)(a >> 23);
  if (e == 0)
    for (e = 1; a < 0x800000u; a <<= 1) e--;
  return e - 127;
}

/* Rounds a finite magnitude pattern as if the exponent had no upper end; 0x7f800000 stands for 2^128. */
static inline MPTL_HD uint32_t mptl_round_magnitude(uint32_t a, bool negative, const mptl_rounder *r, mptl_key key, uint64_t index) {
  if (a == 0) return 0;
  int exponent = mptl_exponent(a), field = (int)(a >> 23);
  uint32_t sig = field ? (a & 0x7fffffu) | 0x800000u : a;
  int grid = (exponent > r->emin ? exponent : r->emin) - r->format.m;
  int d = grid - ((field ? field : 1) - 150);
  if (d <= 0) return a;
  bool away;
  if (d <= 23) {
    uint32_t unit = 1u << d, rest = sig & (unit - 1), floor = a & ~(unit - 1);
    uint32_t half = unit >> 1;
    switch (r->mode) {
      case MPTL_NEAREST_EVEN: away = rest > half || (rest == half && (sig >> d & 1)); break;
      case MPTL_NEAREST_AWAY: away = rest >= half; break;
      case MPTL_UP: away = rest != 0 && !negative; break;
      case MPTL_DOWN: away = rest != 0 && negative; break;
      case MPTL_STOCHASTIC: away = mptl_random_u32(key, index, 0) >> (32 - d) < rest; break;
      default: away = false;
    }
    return floor + (away ? unit : 0);
  }
  /* Below the smallest value of the grid: zero or that. */
  switch (r->mode) {
    case MPTL_NEAREST_EVEN: away = d == 24 && sig > 0x800000u; break;
    case MPTL_NEAREST_AWAY: away = d == 24; break;
    case MPTL_UP: away = !negative; break;
    case MPTL_DOWN: away = negative; break;
    case MPTL_STOCHASTIC: {
      uint64_t random = (uint64_t)mptl_random_u32(key, index, 0) << 32 | mptl_random_u32(key, index, 1);
      uint64_t share = d <= 64 ? (uint64_t)sig << (64 - d) : d < 88 ? (uint64_t)(sig >> (d - 64)) : 0;
      away = random < share;
      break;
    }
    default: away = false;
  }
  return away ? r->tiny_bits : 0;
}

/* The rounding of the pattern u; adds to stats (never NULL). */
static inline MPTL_HD uint32_t mptl_round_bits(uint32_t u, const mptl_rounder *r, mptl_key key, uint64_t index, mptl_round_stats *stats) {
  uint32_t a = u & 0x7fffffffu, sign = u & 0x80000000u;
  stats->elements++;
  if (a > 0x7f800000u) {
    stats->nan_in++;
    return u | 0x400000u;
  }
  if (a == 0x7f800000u) {
    stats->inf_in++;
    return sign | (r->overflow == MPTL_INF ? a : r->max_bits);
  }
  if (mptl_float_of(a) > stats->max_abs) stats->max_abs = mptl_float_of(a);
  uint32_t rounded = mptl_round_magnitude(a, sign != 0, r, key, index);
  if (rounded == 0 && a != 0) stats->underflow++;
  if (rounded <= r->max_bits) return sign | rounded;
  bool inward = r->mode == MPTL_TOWARD_ZERO || (r->mode == MPTL_UP && sign) || (r->mode == MPTL_DOWN && !sign);
  if (inward) return sign | r->max_bits;
  stats->overflow++;
  return sign | (r->overflow == MPTL_INF ? 0x7f800000u : r->max_bits);
}

#endif
