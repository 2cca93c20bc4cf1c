/* Numbers wider than binary32 (text, binary64, integers), rounded once: directly to a format, not
 * to binary32 first.
 *
 * The finest spacing of any format is 2^-149, and stochastic rounding compares 64 bits below it. So
 * rounding needs the bits of a magnitude down to 2^-213 and whether anything is below them. A
 * magnitude is therefore a fixed-point number with 224 fraction bits and a sticky bit, which is
 * exact for every format and mode. Above 2^160 all magnitudes overflow in the same way.
 */
#ifndef MPTL_EXACT_H
#define MPTL_EXACT_H

#include "mptl/round.h"

enum { MPTL_EXACT_WORDS = 12, MPTL_EXACT_FRACTION_BITS = 224 };

typedef struct mptl_exact {
  uint32_t words[MPTL_EXACT_WORDS]; /* the magnitude in units of 2^-224, least significant word first */
  bool sticky;                      /* and something more, below one unit */
  bool negative;
  bool is_f32;   /* the number is the binary32 pattern `bits`, and the fields above are unused */
  uint32_t bits; /* may be an infinity or a NaN */
} mptl_exact;

MPTL_API mptl_exact mptl_exact_from_f32(uint32_t bits);
MPTL_API mptl_exact mptl_exact_from_f64(double x);
MPTL_API mptl_exact mptl_exact_from_integer(int64_t x);

/* Reads a number that is all of the n bytes of text: decimal ("-1.5e-3", any number of digits),
 * hexadecimal with a binary exponent ("0x1.8p-3"), or inf, infinity or nan in any case. false for
 * anything else. */
MPTL_API bool mptl_exact_parse(mptl_exact *x, const char *text, size_t n);

/* Rounds; for numbers that binary32 holds, the result is that of mptl_round_bits. Where the
 * format's spacing is finer than binary32's (below 2^-126), the number is rounded once, to
 * binary32's. *event is set to what happened, or 0. */
MPTL_API uint32_t mptl_round_exact(const mptl_exact *x, const mptl_rounder *rounder, mptl_key key, uint64_t index,
                                   uint32_t *event);

/* The argument for mptl_format_fit: the magnitude if it is a power of two, else another number
 * between the same two powers of two; 0 for infinities and NaNs. */
MPTL_API double mptl_exact_bound(const mptl_exact *x);

#endif
