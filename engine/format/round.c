/* The rounder, and the public array functions, which call the kernels of the instruction set in
 * use. */
#include "mptl/round.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/limits.h"
#include "kernels/cpu/table.h"

static const char *const mode_names[] = {"nearest_even", "nearest_away", "toward_zero",
                                         "up",           "down",         "stochastic"};

enum { MODES = sizeof mode_names / sizeof mode_names[0] };

const char *mptl_rounding_mode_name(size_t index) {
  return index < MODES ? mode_names[index] : NULL;
}

mptl_status mptl_rounding_mode_parse(mptl_rounding_mode *mode, const char *name) {
  for (int i = 0; i < MODES; i++) {
    if (strcmp(name, mode_names[i]) != 0) continue;
    *mode = (mptl_rounding_mode)i;
    return MPTL_OK;
  }
  return mptl_fail(MPTL_EINVAL,
                   "rounding mode %.60s: accepted are nearest_even, nearest_away, toward_zero, up, "
                   "down, stochastic",
                   name);
}

/* The binary32 pattern of a power of two; 0 below binary32's range, infinity above it. */
static uint32_t power_bits(int exponent) { return mptl_f32_bits((float)ldexp(1, exponent)); }

void mptl_rounder_init(mptl_rounder *rounder, mptl_format format, mptl_rounding_mode mode,
                       mptl_overflow overflow) {
  mptl_format_limits limits = mptl_format_find_limits(format);
  mptl_rounder r = {
      .format = format, .mode = mode, .overflow = overflow, .emin = limits.emin, .m = format.m};
  int smallest = limits.emin - format.m; /* exponent of the smallest value */
  r.max_bits = mptl_f32_bits((float)limits.max);
  r.min_bits = smallest < -149 ? 1 : power_bits(smallest);
  r.over_bits = overflow == MPTL_INF ? MPTL_F32_INF : r.max_bits;
  uint32_t half = power_bits(smallest - 1);
  switch (mode) {
    case MPTL_NEAREST_EVEN:
      r.up_above = half;
      break;
    case MPTL_NEAREST_AWAY:
      r.up_above = half > 0 ? half - 1 : 0;
      break;
    case MPTL_UP:
    case MPTL_DOWN:
      r.up_above = 0;
      break;
    default:
      r.up_above = MPTL_F32_INF;
      break;
  }
  r.code_sign = 1u << (format.e + format.m);
  r.max_code = limits.max_code;
  r.inf_code = limits.has_infinity ? limits.inf_code : limits.max_code;
  r.nan_code = limits.has_nan ? limits.nan_code : limits.max_code;
  r.has_infinity = limits.has_infinity;
  r.has_nan = limits.has_nan;
  r.is_identity = !format.auto_bias && format.m == 23 && smallest <= -149 &&
                  r.max_bits == MPTL_F32_INF - 1 && overflow == MPTL_INF;
  r.is_regular = limits.emin >= -126;
  r.has_halves = mptl_format_bits(format) <= 8 && smallest >= -126;
  for (uint32_t code = 0; r.has_halves && code < r.code_sign; code++)
    r.halves[code] = (uint16_t)(mptl_decode_code(code, &r) >> 16);
  *rounder = r;
}

void mptl_rounder_fit(mptl_rounder *rounder, float largest) {
  if (!rounder->format.auto_bias) return;
  mptl_format fitted = mptl_format_fit(rounder->format, largest);
  if (fitted.b == rounder->format.b) return;
  fitted.auto_bias = true;
  mptl_rounder_init(rounder, fitted, rounder->mode, rounder->overflow);
}

size_t mptl_code_size(mptl_format format) {
  int bits = mptl_format_bits(format);
  return bits <= 8 ? 1 : bits <= 16 ? 2 : 4;
}

void mptl_round_f32(float *dst, const float *src, size_t n, const mptl_rounder *rounder,
                    mptl_key key, uint64_t index0, mptl_round_stats *stats) {
  mptl_round_stats unused = {0};
  mptl_cpu_kernels_get()->round_f32(dst, src, n, rounder, key, index0, stats ? stats : &unused);
}

void mptl_encode_f32(void *codes, const float *src, size_t n, const mptl_rounder *rounder,
                     mptl_key key, uint64_t index0, mptl_round_stats *stats) {
  mptl_round_stats unused = {0};
  mptl_cpu_kernels_get()->encode_f32(codes, src, n, rounder, key, index0, stats ? stats : &unused);
}

void mptl_decode_f32(float *dst, const void *codes, size_t n, const mptl_rounder *rounder) {
  mptl_cpu_kernels_get()->decode_f32(dst, codes, n, rounder);
}

float mptl_max_abs_f32(const float *x, size_t n) {
  return mptl_cpu_kernels_get()->max_abs_f32(x, n);
}
