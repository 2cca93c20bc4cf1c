/* The values that rounding is measured on, here and in the peers. */
#ifndef BENCH_ROUND_VALUES_H
#define BENCH_ROUND_VALUES_H

#include "kernels/round.h"

/* The i-th: values of every binade from 2^-20 to 2^3 alike, of either sign, and every 1024th beyond
 * 2^9: to FP(4,3,4) a third are subnormal or zero and a thousandth overflows. */
static inline float mptl_bench_value(uint64_t i) {
  uint32_t r = mptl_random_u32(mptl_make_key(1, MPTL_STREAM_INIT, 0, 0), i, 0);
  uint32_t field = i % 1024 == 1023 ? 137 : 107 + (r >> 23) % 24;
  return mptl_bits_f32((r & 0x807fffff) | field << 23);
}

#endif
