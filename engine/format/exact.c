/* Exact numbers as fixed-point integers: making them from binary numbers, and rounding them.
 * exact_text.c makes them from text. */
#include "mptl/exact.h"

#include <math.h>

#include "format/exact.h"

void mptl_exact_add(mptl_exact *x, uint64_t digits, int bit) {
  while (bit < 0 && digits != 0) { /* at most 64 times */
    x->sticky |= (digits & 1) != 0;
    digits >>= 1;
    bit++;
  }
  if (digits == 0) return;
  int word = bit / 32, shift = bit % 32;
  uint64_t carry = 0, parts[3] = {digits << shift & 0xffffffffu, digits << shift >> 32,
                                  shift ? digits >> (64 - shift) : 0};
  for (int i = 0; i < 3 || carry != 0; i++) {
    uint64_t part = (i < 3 ? parts[i] : 0) + carry;
    if (word + i >= MPTL_EXACT_WORDS) {
      if (part != 0) mptl_exact_set_huge(x);
      if (part != 0 || i >= 3) return;
      continue;
    }
    part += x->words[word + i];
    x->words[word + i] = (uint32_t)part;
    carry = part >> 32;
  }
}

void mptl_exact_set_huge(mptl_exact *x) {
  for (int i = 0; i < MPTL_EXACT_WORDS; i++) x->words[i] = 0xffffffffu;
}

mptl_exact mptl_exact_from_f32(uint32_t bits) { return (mptl_exact){.is_f32 = true, .bits = bits}; }

mptl_exact mptl_exact_from_f64(double value) {
  float narrow = (float)value;
  if (isnan(value) || (double)narrow == value)
    return mptl_exact_from_f32(mptl_f32_bits(narrow)); /* infinities too */
  mptl_exact x = {.negative = signbit(value) != 0};
  int exponent;
  uint64_t digits = (uint64_t)ldexp(frexp(fabs(value), &exponent), 53);
  mptl_exact_add(&x, digits, exponent - 53 + MPTL_EXACT_FRACTION_BITS);
  return x;
}

mptl_exact mptl_exact_from_integer(int64_t value) {
  if (value == 0) return mptl_exact_from_f32(0);
  mptl_exact x = {.negative = value < 0};
  mptl_exact_add(&x, value < 0 ? -(uint64_t)value : (uint64_t)value, MPTL_EXACT_FRACTION_BITS);
  return x;
}

/* The index of the highest bit that is 1; -1 if there is none. */
static int leading_bit(const mptl_exact *x) {
  for (int i = MPTL_EXACT_WORDS - 1; i >= 0; i--)
    for (int bit = 31; bit >= 0 && x->words[i] != 0; bit--)
      if (x->words[i] >> bit & 1) return 32 * i + bit;
  return -1;
}

static uint64_t word_at(const mptl_exact *x, int i) {
  return i < MPTL_EXACT_WORDS ? x->words[i] : 0;
}

/* The 64 bits from `bit` upwards. */
static uint64_t digits_from(const mptl_exact *x, int bit) {
  int word = bit / 32, shift = bit % 32;
  uint64_t digits = word_at(x, word) | word_at(x, word + 1) << 32;
  return shift ? digits >> shift | word_at(x, word + 2) << (64 - shift) : digits;
}

/* Whether the number has anything below `bit`. */
static bool any_below(const mptl_exact *x, int bit) {
  if (x->sticky) return true;
  for (int i = 0; i < bit / 32; i++)
    if (x->words[i] != 0) return true;
  return bit % 32 && (x->words[bit / 32] & ((1u << bit % 32) - 1)) != 0;
}

/* Rounds a magnitude above 0 as mptl_round_magnitude does. */
static uint32_t round_magnitude(const mptl_exact *x, const mptl_rounder *r, mptl_key key,
                                uint64_t index) {
  int top = leading_bit(x), exponent = top - MPTL_EXACT_FRACTION_BITS;
  if (top >= 0 && exponent >= 128) return MPTL_F32_INF;
  if (top < 0 || exponent < r->emin) exponent = r->emin;
  int last = exponent - r->m; /* the spacing is 2^last */
  if (last < -149) last = -149;
  int bit = last + MPTL_EXACT_FRACTION_BITS;
  uint32_t kept = (uint32_t)digits_from(x, bit); /* at most 24 bits */
  uint64_t fraction = digits_from(x, bit - 64);
  bool rest = fraction != 0 || any_below(x, bit - 64), up = false;
  bool half = fraction >> 63, more = fraction << 1 != 0 || any_below(x, bit - 64);
  switch (r->mode) {
    case MPTL_NEAREST_EVEN:
      up = half && (more || (kept & 1));
      break;
    case MPTL_NEAREST_AWAY:
      up = half;
      break;
    case MPTL_TOWARD_ZERO:
      break;
    case MPTL_UP:
      up = rest && !x->negative;
      break;
    case MPTL_DOWN:
      up = rest && x->negative;
      break;
    case MPTL_STOCHASTIC:
      up = ((uint64_t)mptl_random_u32(key, index, 0) << 32 | mptl_random_u32(key, index, 1)) <
           fraction;
      break;
  }
  return mptl_f32_bits((float)ldexp((double)kept + up, last)); /* exact, or 2^128: infinity */
}

uint32_t mptl_round_exact(const mptl_exact *x, const mptl_rounder *r, mptl_key key, uint64_t index,
                          uint32_t *event) {
  if (x->is_f32) return mptl_round_bits(x->bits, r, key, index, event);
  uint32_t sign = x->negative ? MPTL_F32_SIGN : 0;
  if (leading_bit(x) < 0 && !x->sticky) {
    *event = 0;
    return sign;
  }
  return mptl_deliver_magnitude(round_magnitude(x, r, key, index), sign, r, event);
}

double mptl_exact_bound(const mptl_exact *x) {
  if (x->is_f32) {
    double value = fabs((double)mptl_bits_f32(x->bits));
    return isfinite(value) ? value : 0;
  }
  int top = leading_bit(x);
  if (top < 0) return x->sticky ? ldexp(1, -MPTL_EXACT_FRACTION_BITS) : 0;
  double power = ldexp(1, top - MPTL_EXACT_FRACTION_BITS);
  bool alone = !any_below(x, top);
  return alone ? power : 1.5 * power;
}
