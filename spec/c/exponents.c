/* Counting exponents, compared with the C library's ilogbf: every sign and exponent field with
 * extreme and other mantissas, subnormals with every leading bit, infinities and NaNs; and
 * merging. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/exponents.h"

static uint32_t checked;

/* Counts one pattern and compares with ilogbf. */
static void check(uint32_t bits, mptl_exponents *all) {
  mptl_exponents one = {0};
  float x = mptl_bits_f32(bits);
  mptl_count_exponent(&one, bits);
  uint64_t number = 0;
  for (int i = 0; i < MPTL_EXPONENT_COUNTS; i++) number += one.counts[i];
  bool finite = isfinite(x), good;
  if (x == 0)
    good = one.zeros == 1 && number + one.inf + one.nan == 0 && one.max_abs == 0;
  else if (isnan(x))
    good = one.nan == 1 && number + one.inf + one.zeros == 0 && one.max_abs == 0;
  else if (!finite)
    good = one.inf == 1 && number + one.nan + one.zeros == 0 && one.max_abs == 0;
  else
    good = number == 1 && one.counts[ilogbf(x) + 149] == 1 && one.inf + one.nan + one.zeros == 0 &&
           one.max_abs == fabsf(x);
  if (!good) {
    fprintf(stderr, "0x%08x (%a): counted wrongly\n", bits, (double)x);
    exit(1);
  }
  mptl_exponents_merge(all, &one);
  checked++;
}

int main(void) {
  mptl_exponents all = {0};
  for (uint32_t sign = 0; sign < 2; sign++) {
    for (uint32_t field = 0; field < 256; field++)
      for (uint32_t k = 0; k < 24; k++) {
        uint32_t bit = k == 23 ? 0 : 1u << k;
        check(sign << 31 | field << 23 | bit, &all);
        check(sign << 31 | field << 23 | (0x7fffffu & ~bit), &all);
        check(sign << 31 | field << 23 | (bit ? bit - 1 : 0x2aaaaau), &all);
      }
  }
  uint64_t sum = all.zeros + all.inf + all.nan;
  for (int i = 0; i < MPTL_EXPONENT_COUNTS; i++) sum += all.counts[i];
  if (sum != checked || all.max_abs != 0x1.fffffep127f || all.counts[0] == 0 ||
      all.counts[MPTL_EXPONENT_COUNTS - 1] == 0) {
    fprintf(stderr, "merged counts: %llu of %u\n", (unsigned long long)sum, checked);
    return 1;
  }
  return 0;
}
