/* What the specs of CUDA kernels share: checks, random data, the two orders of threads. */
#ifndef MPTL_SPEC_CUDA_SUPPORT_H
#define MPTL_SPEC_CUDA_SUPPORT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/shim.h"

extern "C" {
#include "mptl/round.h"
#include "mptl/status.h"
}

static int failures;

/* Counts a failure, and reports the first few with a description (printf arguments). */
#define CHECK(condition, ...)                                       \
  do {                                                              \
    if (condition) break;                                           \
    if (++failures > 20) break;                                     \
    fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
    fprintf(stderr, __VA_ARGS__);                                   \
    fputc('\n', stderr);                                            \
  } while (0)

/* Splitmix64. */
static inline uint64_t random_bits(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* In (-scale, scale), with a full significand. */
static inline float random_float(uint64_t *state, float scale) {
  return (float)(int32_t)(random_bits(state) >> 32) * 0x1p-31f * scale;
}

static inline mptl_rounder make_rounder(const char *format, mptl_rounding_mode mode,
                                        mptl_overflow overflow) {
  mptl_format f;
  mptl_rounder r;
  if (mptl_format_parse(&f, format) != MPTL_OK) {
    fprintf(stderr, "%s\n", mptl_error());
    exit(1);
  }
  mptl_rounder_init(&r, f, mode, overflow);
  return r;
}

/* Whether the bits are equal, or both numbers are NaN. */
static inline bool same_value(float a, float b) {
  return mptl_f32_bits(a) == mptl_f32_bits(b) || (a != a && b != b);
}

static inline bool same_stats(const mptl_round_stats *a, const mptl_round_stats *b) {
  return a->elements == b->elements && a->underflow == b->underflow && a->overflow == b->overflow &&
         a->inf_in == b->inf_in && a->nan_in == b->nan_in &&
         mptl_f32_bits(a->max_abs) == mptl_f32_bits(b->max_abs);
}

static inline void check_stats(const char *what, const mptl_round_stats *got,
                               const mptl_round_stats *want) {
  CHECK(same_stats(got, want),
        "%s: %llu elements %llu underflow %llu overflow %llu inf %llu nan %a, expected %llu %llu "
        "%llu %llu %llu %a",
        what, (unsigned long long)got->elements, (unsigned long long)got->underflow,
        (unsigned long long)got->overflow, (unsigned long long)got->inf_in,
        (unsigned long long)got->nan_in, (double)got->max_abs, (unsigned long long)want->elements,
        (unsigned long long)want->underflow, (unsigned long long)want->overflow,
        (unsigned long long)want->inf_in, (unsigned long long)want->nan_in, (double)want->max_abs);
}

/* Runs fn twice, with the threads of blocks in both orders. */
template <typename Function>
static inline void in_both_orders(Function fn) {
  for (mptl_shim_turns order : {MPTL_SHIM_FORWARD, MPTL_SHIM_REVERSE}) {
    mptl_shim_order = order;
    fn();
  }
  mptl_shim_order = MPTL_SHIM_FORWARD;
}

#endif
