/* Fetching memory ahead, for kernels that work on tiles: the processor's own fetching begins anew
 * with each operand of a tile. */
#ifndef MPTL_KERNELS_CPU_AHEAD_H
#define MPTL_KERNELS_CPU_AHEAD_H

#include <stddef.h>
#include <stdint.h>

enum {
  MPTL_LINE = 64,    /* bytes of a line of the cache */
  MPTL_AHEAD = 2048, /* elements: about a tile, whose other operands come first */
};

/* Fetches the line with the element that is MPTL_AHEAD elements of `size` bytes behind p. It may be
 * behind the end of the array. */
static inline void mptl_fetch_ahead(const void *p, size_t size) {
  __builtin_prefetch((const void *)((uintptr_t)p + MPTL_AHEAD * size));
}

#endif
