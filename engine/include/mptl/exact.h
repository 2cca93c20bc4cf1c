/* Numbers wider than binary32 (text, binary64, integers), rounded once: straight to a format, not to binary32 first.
 *
 * What rounding asks of a magnitude are its digits down to 2^-64 of the finest spacing there is, 2^-149, and whether anything is below
 * them: so it is kept as a fixed-point number with 224 binary places and a sticky bit, which is exact for every format and mode. Above
 * 2^160 all magnitudes overflow alike.
 */
#ifndef MPTL_EXACT_H
#define MPTL_EXACT_H

#include "mptl/round.h"

enum { MPTL_EXACT_WORDS = 12, MPTL_EXACT_FRACTION_BITS = 224 };

typedef struct mptl_exact {
  uint32_t words[MPTL_EXACT_WORDS]; /* the magnitude in units of 2^-224, least significant word first */
  bool sticky;                      /* and something below one unit */
  bool negative;
  bool is_f32;   /* then the number is the binary32 pattern `bits`, and the fields above are unused: */
  uint32_t bits; /* infinities, NaNs, patterns */
} mptl_exact;

MPTL_API mptl_exact mptl_exact_from_f32(uint32_t bits);
MPTL_API mptl_exact mptl_exact_from_f64(double x);
MPTL_API mptl_exact mptl_exact_from_integer(int64_t x);

/* Reads n bytes of text that are a number from end to end: decimal ("-1.5e-3"; any number of digits), hexadecimal with a binary exponent
 * ("0x1.8p-3"), inf, infinity or nan in any case. false for anything else. */
MPTL_API bool mptl_exact_parse(mptl_exact *x, const char *text, size_t n);

/* Rounds as mptl_round_bits does, which it equals for what binary32 holds. Values that the format has and binary32 has not (below
 * 2^-126) are rounded to binary32's spacing, once. *event is set to what happened, or 0. */
MPTL_API uint32_t mptl_round_exact(const mptl_exact *x, const mptl_rounder *rounder, mptl_key key, uint64_t index,
                                   uint32_t *event);

/* For mptl_format_fit: the magnitude if it is a power of two, else a number between it and the next power of two; 0 for infinities
 * and NaNs. */
MPTL_API double mptl_exact_bound(const mptl_exact *x);

#endif
