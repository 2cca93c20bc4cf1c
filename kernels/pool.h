/* The shape of a pool, as kernels on every device take it. */
#ifndef MPTL_KERNELS_POOL_H
#define MPTL_KERNELS_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/random.h" /* MPTL_HD */

/* A global mean is an average over one window. */
typedef struct mptl_pool {
  size_t batch, c, ih, iw, oh, ow, kh, kw, sh, sw, ph, pw;
  bool without_padding; /* averages count only what is inside of the image */
} mptl_pool;

/* Of a window's k positions from at on (padding included), those that are inside of the image. */
static inline MPTL_HD size_t mptl_pool_inside(size_t at, size_t k, size_t padding, size_t size) {
  size_t first = at > padding ? at : padding, end = at + k < size + padding ? at + k : size + padding;
  return end - first;
}

#endif
