/* Rounding binary32 arrays to a format, with statistics; encoding and decoding (method.md 2).
 *
 * kernels/round.h is the one scalar definition. These functions run it, or a vector version that
 * equals it bit for bit on every input and is chosen at run time (mptl_isa_select). They run on the
 * calling thread and may be called by several threads at once: callers divide arrays among
 * threads. */
#ifndef MPTL_ROUND_H
#define MPTL_ROUND_H

#include "kernels/round.h"
#include "mptl/format.h"

/* The names of mptl_rounding_mode ("nearest_even", ...) by index from 0; NULL after the last. */
MPTL_API const char *mptl_rounding_mode_name(size_t index);

/* MPTL_EINVAL for another name. */
MPTL_API mptl_status mptl_rounding_mode_parse(mptl_rounding_mode *mode, const char *name);

/* Fills in a rounder. The rounder of an auto_bias format must be fitted before it rounds values. */
MPTL_API void mptl_rounder_init(mptl_rounder *rounder, mptl_format format, mptl_rounding_mode mode,
                                mptl_overflow overflow);

/* Gives the rounder of an auto_bias format the shift for values of this largest finite magnitude
 * (mptl_format_fit); the format stays auto_bias. Other rounders do not change. */
MPTL_API void mptl_rounder_fit(mptl_rounder *rounder, float largest);

/* dst[i] = round(src[i]) for i < n; dst may be src. The counts are added to stats, unless it is
 * NULL. index0 is the index of src[0] in its tensor, and key selects the random bits; only the
 * stochastic mode uses them. */
MPTL_API void mptl_round_f32(float *dst, const float *src, size_t n, const mptl_rounder *rounder,
                             mptl_key key, uint64_t index0, mptl_round_stats *stats);

/* As mptl_round_f32, but writes codes: one byte each for formats of up to 8 bits, two for up to 16,
 * four for more (mptl_code_size). An infinity or NaN for which the format has no code becomes the
 * largest finite code of its sign; the statistics count it. */
MPTL_API void mptl_encode_f32(void *codes, const float *src, size_t n, const mptl_rounder *rounder,
                              mptl_key key, uint64_t index0, mptl_round_stats *stats);

/* dst[i] = the value of codes[i], i < n. */
MPTL_API void mptl_decode_f32(float *dst, const void *codes, size_t n, const mptl_rounder *rounder);

/* Bytes of a code in memory: 1, 2 or 4. */
MPTL_API size_t mptl_code_size(mptl_format format);

/* The largest finite magnitude in x, for mptl_format_fit; 0 if there is none. */
MPTL_API float mptl_max_abs_f32(const float *x, size_t n);

#endif
