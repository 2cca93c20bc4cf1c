/* The weights that scale an image in one direction: each scaled pixel of a row or column is a
 * weighted sum of neighbouring source pixels. */
#ifndef MPTL_KERNELS_CPU_RESAMPLE_H
#define MPTL_KERNELS_CPU_RESAMPLE_H

#include <stdint.h>

enum { MPTL_WEIGHT_BITS = 22 }; /* a weight of 1 is 2^22 */

typedef struct mptl_filter_weights {
  int stride;            /* values from one scaled pixel to the next */
  const int32_t *firsts; /* [n] the first source pixel */
  const int32_t *counts; /* [n] how many source pixels */
  const int32_t *values; /* [n][stride] */
} mptl_filter_weights;

#endif
