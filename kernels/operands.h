/* What operators read and write, for C and CUDA: programs, the operators of the CPU and the
 * launchers of CUDA kernels use these definitions. Addresses are in the device's memory, rounders
 * in the host's. */
#ifndef MPTL_KERNELS_OPERANDS_H
#define MPTL_KERNELS_OPERANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/exponents.h"
#include "kernels/round.h"

/* A value in memory as an operator reads it: NHWC, already rounded, stored in binary32 or as codes
 * of its format. */
typedef struct mptl_source {
  const void *data; /* aligned to size bytes */
  size_t size;      /* bytes of an element: 1, 2: codes; 4: binary32; 0: there is no value */
  const mptl_rounder
      *rounder; /* by which it was rounded; NULL: it was not, as a sum of gradients */
} mptl_source;

/* Where results of an operator go. Each is rounded once and counted, then stored, or added in
 * binary32 to what is there (the gradient of a value with several consumers). */
typedef struct mptl_sink {
  void *data;  /* NULL: nothing is stored */
  size_t size; /* as in a source */
  const mptl_rounder *rounder;
  mptl_key key; /* of the random bits; the first element has index index0 */
  uint64_t index0;
  bool accumulate; /* results are added; size is 4 */
  bool wanted;     /* false: a gradient that nothing needs; nothing else is set */
  bool part;       /* the gradient of a slice's input: other slices write the other channels */
  bool ranging;    /* only find the range, as stats->max_abs: nothing is rounded or stored */
  mptl_round_stats *stats; /* counts are added; NULL: not counted */
  mptl_exponents
      *exponents; /* of the values before rounding; counts are added; NULL: not counted */
} mptl_sink;

/* An array to round: dst[i] = round(src[i]) for i < n. dst may be src. */
typedef struct mptl_rounding {
  float *dst; /* NULL: only count exponents; rounder and stats are not used */
  const float *src;
  size_t n; /* 0 is allowed */
  const mptl_rounder *rounder;
  mptl_key key; /* of the random bits; the first element has index index0 */
  uint64_t index0;
  mptl_round_stats *stats; /* counts are added; NULL: not counted */
  mptl_exponents
      *exponents; /* of the elements before rounding; counts are added; NULL: not counted */
} mptl_rounding;

#endif
