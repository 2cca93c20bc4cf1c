/* The shape of a pool, for the kernels of all devices. */
#ifndef MPTL_KERNELS_POOL_H
#define MPTL_KERNELS_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/random.h" /* MPTL_HD */

/* Sizes in elements, named as for a convolution: input i, output o, kernel k, stride s, padding p,
 * each by height and width. A global mean is an average over one window. */
typedef struct mptl_pool {
  size_t batch, c, ih, iw, oh, ow, kh, kw, sh, sw, ph, pw;
  bool without_padding; /* averages divide by the number of elements inside the image */
} mptl_pool;

/* How many of the k positions of a window are inside the image; the window begins at position `at`
 * of the padded image. */
static inline MPTL_HD size_t mptl_pool_inside(size_t at, size_t k, size_t padding, size_t size) {
  size_t first = at > padding ? at : padding,
         end = at + k < size + padding ? at + k : size + padding;
  return end - first;
}

#endif
