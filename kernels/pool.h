/* The shape of a pool, as kernels on every device take it. */
#ifndef MPTL_KERNELS_POOL_H
#define MPTL_KERNELS_POOL_H

#include <stdbool.h>
#include <stddef.h>

/* A global mean is an average over one window. */
typedef struct mptl_pool {
  size_t batch, c, ih, iw, oh, ow, kh, kw, sh, sw, ph, pw;
  bool without_padding; /* averages count only what is inside of the image */
} mptl_pool;

#endif
