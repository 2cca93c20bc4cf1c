/* Number formats FP(e,m,b): 1 sign bit, e exponent bits, m mantissa bits, exponent bias shift b
 * (Lee, Sharma, Aiken, TMLR 2023, section 2; method.md 1).
 *
 * With B = 2^(e-1) - 1 + b, exponent field E and mantissa field M:
 *   E > 0: (-1)^s 2^(E-B) (1 + M/2^m);   E = 0: (-1)^s 2^(1-B) (M/2^m).
 * `top` says what the codes with the largest E mean. No format has values beyond those of binary32:
 * the code that would be 2^128 is infinity, the codes above it are NaN. So FP(8,23,0) is binary32
 * and FP(8,7,0) is bfloat16.
 */
#ifndef MPTL_FORMAT_H
#define MPTL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

typedef enum mptl_top {
  /* no code reserved: the top exponent is an ordinary binade (the paper's formats) */
  MPTL_TOP_FULL,
  MPTL_TOP_IEEE, /* the top exponent holds infinity (M = 0) and NaN (fp16, fp8_e5m2) */
  MPTL_TOP_FN,   /* the code of all ones is NaN, there is no infinity (fp8_e4m3fn) */
} mptl_top;

typedef struct mptl_format {
  int8_t e;    /* exponent bits, 1 to 8 */
  int8_t m;    /* mantissa bits, 0 to 23 */
  int16_t b;   /* exponent bias shift, -127 to 127; with auto_bias: the current one, 0 before it is
                  fitted */
  uint8_t top; /* an mptl_top */
  bool auto_bias; /* FP(e,m,auto): b depends on the values, see mptl_format_fit */
} mptl_format;

/* Facts about a format; all values are exact in binary64. For auto_bias formats they hold for the
 * current b. */
typedef struct mptl_format_info {
  int bits;             /* 1 + e + m */
  double max;           /* largest finite value */
  double min_normal;    /* smallest positive normal value */
  double min_subnormal; /* smallest positive value */
  double epsilon;       /* 2^-m */
  bool has_infinity, has_nan;
  uint64_t values; /* number of distinct finite values, the two zeros counted once */
} mptl_format_info;

/* Parses "fp32", "tf32", "bf16", "fp16", "fp8_e4m3fn", "fp8_e5m2", "FP(e,m,b)" or "FP(e,m,auto)",
 * in upper or lower case, with spaces inside the brackets. MPTL_EINVAL: the message names the limit
 * that the text exceeds. */
MPTL_API mptl_status mptl_format_parse(mptl_format *format, const char *text);

/* Writes the format's name (a named format by its name, else FP(e,m,b)) to text and returns text.
 * 32 bytes suffice. */
MPTL_API const char *mptl_format_print(mptl_format format, char *text, size_t size);

MPTL_API bool mptl_format_equal(mptl_format a,
                                mptl_format b); /* ignores the current shift of auto_bias formats */
MPTL_API int mptl_format_bits(mptl_format format);
MPTL_API mptl_format_info mptl_format_describe(mptl_format format);

/* The format with the bias shift of FP(e,m,auto) for values of this largest magnitude (method.md
 * 1.4): b = floor(2^(e-1) - log2 max(largest, 2^-100)), limited to -127 to 127. The largest value
 * of the format is then at least the next power of two, if binary32 has that, so no magnitude up to
 * `largest` overflows in any rounding mode. Formats without auto_bias are returned unchanged. */
MPTL_API mptl_format mptl_format_fit(mptl_format format, double largest);

/* How many products of bf16 numbers add up to the exact product of values of two formats: 1 if both
 * have at most 8 significant bits; 2 or 4 if one or both have up to 16, and so are the sum of two
 * bf16 numbers; 0 if no such number is exact, or if a unit that replaces subnormal operands or
 * products by zero would change the result. */
MPTL_API int mptl_bf16_products(mptl_format a, mptl_format b);

/* The names of the named formats, by index from 0; NULL after the last. */
MPTL_API const char *mptl_format_name(size_t index);

#endif
