/* Numbers wider than binary32 (text, binary64, integers), rounded once: directly to a format, not
 * to binary32 first (method.md 2).
 *
 * The smallest spacing of any format is 2^-149, and stochastic rounding compares 64 bits below it.
 * So rounding needs the bits of a magnitude down to 2^-213, and whether anything is below them. A
 * magnitude is therefore a fixed-point number with 224 fraction bits and a sticky bit, which is
 * enough for every format and mode. Above 2^160 all magnitudes overflow in the same way.
 */
#ifndef MPTL_EXACT_H
#define MPTL_EXACT_H

#include "mptl/round.h"

enum { MPTL_EXACT_WORDS = 12, MPTL_EXACT_FRACTION_BITS = 224 };

typedef struct mptl_exact {
  uint32_t
      words[MPTL_EXACT_WORDS]; /* the magnitude in units of 2^-224, least significant word first */
  bool sticky;                 /* something below one unit has to be added */
  bool negative;
  bool is_f32;   /* the number is the binary32 pattern `bits`, and the fields above are unused */
  uint32_t bits; /* may be an infinity or a NaN */
} mptl_exact;

MPTL_API mptl_exact mptl_exact_from_f32(uint32_t bits);
MPTL_API mptl_exact mptl_exact_from_f64(double x);
MPTL_API mptl_exact mptl_exact_from_integer(int64_t x);

/* Reads a number, which must be the whole text of n bytes: decimal ("-1.5e-3", any number of
 * digits), hexadecimal with a binary exponent ("0x1.8p-3"), or inf, infinity or nan in any case.
 * false for anything else. The time is proportional to n. */
MPTL_API bool mptl_exact_parse(mptl_exact *x, const char *text, size_t n);

/* Rounds x, which is element `index` of the tensor whose random bits key selects, and returns the
 * binary32 pattern. If binary32 holds the number, the result is the same as from mptl_round_bits.
 * If the spacing of the format is finer than in binary32 (below 2^-126), the number is rounded
 * once, to a binary32 number. *event is set to what happened, or 0. */
MPTL_API uint32_t mptl_round_exact(const mptl_exact *x, const mptl_rounder *rounder, mptl_key key,
                                   uint64_t index, uint32_t *event);

/* The argument for mptl_format_fit: the magnitude if it is a power of two, else another number
 * between the same two powers of two; 0 for infinities and NaNs. */
MPTL_API double mptl_exact_bound(const mptl_exact *x);

#endif
