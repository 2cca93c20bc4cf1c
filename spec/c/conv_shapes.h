/* Random convolutions for the specs of products. */
#ifndef MPTL_SPEC_CONV_SHAPES_H
#define MPTL_SPEC_CONV_SHAPES_H

#include "dnn_check.h"

/* Window, stride, padding and dilation of an axis, and its sizes. */
static inline void random_axis(int *in, int *out, int *k, int *stride, int *padding, int *dilation,
                               uint64_t *state) {
  do {
    *in = 1 + (int)(random_bits(state) % 12);
    *k = 1 + (int)(random_bits(state) % 5);
    *stride = 1 + (int)(random_bits(state) % 3);
    *padding = (int)(random_bits(state) % 4);
    *dilation = 1 + (int)(random_bits(state) % 3);
    *out = (*in + 2 * *padding - *dilation * (*k - 1) - 1) / *stride + 1;
  } while (*in + 2 * *padding < *dilation * (*k - 1) + 1);
}

#endif
