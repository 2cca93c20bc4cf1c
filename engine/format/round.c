/* Array rounding. */
#include "mptl/round.h"

#include <math.h>

const char *mptl_rounding_mode_name(size_t index) {
  static const char *const names[] = {"nearest_even", "nearest_away", "toward_zero", "up", "down", "stochastic"};
  return index < sizeof names / sizeof *names ? names[index] : NULL;
}

mptl_status mptl_rounding_mode_parse(mptl_rounding_mode *mode, const char *name) {
  for (size_t i = 0; mptl_rounding_mode_name(i) != NULL; i++)
    if (strcmp(name, mptl_rounding_mode_name(i)) == 0) {
      *mode = (mptl_rounding_mode)i;
      return MPTL_OK;
    }
  return mptl_fail(MPTL_EINVAL, "rounding %s: accepted are nearest_even, nearest_away, toward_zero, up, down, stochastic", name);
}

mptl_status mptl_rounder_init(mptl_rounder *r, mptl_format f, mptl_rounding_mode mode, mptl_overflow overflow) {
  if (f.auto_bias) return mptl_fail(MPTL_EINVAL, "format FP(%d,%d,auto): needs a tensor to fit", f.e, f.m);
  int emin = 2 - (1 << (f.e - 1)) - f.b, emax = (1 << (f.e - 1)) - f.b;
  *r = (mptl_rounder){.format = f, .mode = mode, .overflow = overflow, .emin = emin, .identity = f.e == 8 && f.m == 23 && f.b == 0};
  double max = f.top == MPTL_TOP_IEEE ? ldexp(2 - ldexp(1, -f.m), emax - 1)
               : f.top == MPTL_TOP_FN ? ldexp(2 - ldexp(2, -f.m), emax)
                                      : ldexp(2 - ldexp(1, -f.m), emax);
  if (emax > 127) max = ldexp(1, 128) - ldexp(1, (emin > 127 ? emin : 127) - f.m);
  r->max_bits = max > 0 ? mptl_bits_of((float)max) : 0;
  r->tiny_bits = emin - f.m >= 128 ? 0x7f800000u : mptl_bits_of((float)ldexp(1, emin - f.m));
  return MPTL_OK;
}

void mptl_round_f32(float *dst, const float *src, size_t n, const mptl_rounder *r, mptl_key key, uint64_t index0, mptl_round_stats *stats) {
  mptl_round_stats local = {0};
  if (r->identity) {
    if (dst != src) memmove(dst, src, n * sizeof *dst);
    local.elements = n;
  } else {
    for (size_t i = 0; i < n; i++) dst[i] = mptl_float_of(mptl_round_bits(mptl_bits_of(src[i]), r, key, index0 + i, &local));
  }
  if (stats != NULL) mptl_round_stats_add(stats, &local);
}
