/* What operators read and write, for C and CUDA: the one definition that programs, the CPU's operators and the launchers of CUDA kernels
 * share. Addresses are the device's, rounders the host's.
 */
#ifndef MPTL_KERNELS_OPERANDS_H
#define MPTL_KERNELS_OPERANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exponents.h"
#include "kernels/round.h"

/* A value in memory as an operator reads it: NHWC, rounded already, in binary32 or as its format's codes. */
typedef struct mptl_source {
  const void *data;            /* aligned to size */
  size_t size;                 /* bytes of an element: 1 or 2 are codes, 4 is binary32; 0: there is no such value */
  const mptl_rounder *rounder; /* what it was rounded by; NULL for binary32 on no grid, as a sum of gradients is */
} mptl_source;

/* Where an operator's results go: each is rounded once and counted, then stored, or added in binary32 to what is there (the gradient of a
 * value with several consumers). */
typedef struct mptl_sink {
  void *data;  /* NULL: nothing is stored */
  size_t size; /* as a source's */
  const mptl_rounder *rounder;
  mptl_key key; /* random bits; elements count from index0 */
  uint64_t index0;
  bool accumulate;           /* size is 4 then */
  bool wanted;               /* false for a gradient that is not; nothing else is set then */
  bool part;                 /* of a slice's input: only the slice's channels, others write the rest */
  bool ranging;              /* only the largest magnitude is found, in stats: nothing is rounded or kept */
  mptl_round_stats *stats;   /* adds; NULL: not counted */
  mptl_exponents *exponents; /* adds those of the values before they are rounded; NULL: not counted */
} mptl_sink;

/* An array to be rounded: dst[i] = round(src[i]), i < n; dst may be src. */
typedef struct mptl_rounding {
  float *dst; /* NULL: nothing is rounded, only exponents are counted; rounder and stats mean nothing then */
  const float *src;
  size_t n; /* 0 is allowed */
  const mptl_rounder *rounder;
  mptl_key key; /* random bits; elements count from index0 */
  uint64_t index0;
  mptl_round_stats *stats;   /* adds; NULL: not counted */
  mptl_exponents *exponents; /* adds those of the elements before they are rounded; NULL: not counted */
} mptl_rounding;

#endif
