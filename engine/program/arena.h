/* Places blocks with known lifetimes in one arena. A pure function: it allocates no arena. */
#ifndef MPTL_PROGRAM_ARENA_H
#define MPTL_PROGRAM_ARENA_H

#include <stddef.h>

#include "mptl/status.h"

/* A block of memory that keeps its contents from time first to time last, both included
 * (lifetimes.h). */
typedef struct mptl_block {
  size_t bytes;
  int first, last;
  size_t offset; /* result: a multiple of 64 */
} mptl_block;

/* Gives every block an offset. Blocks that live at the same time do not overlap. Places the largest
 * block first, each at the lowest offset where it fits; blocks of 0 bytes get offset 0. *total is
 * the size of the arena in bytes. Fails with MPTL_ENOMEM. */
MPTL_API mptl_status mptl_place_blocks(mptl_block *blocks, int n, size_t *total);

#endif
