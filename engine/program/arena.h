/* Placing blocks of known lifetimes in one arena: a pure function. */
#ifndef MPTL_PROGRAM_ARENA_H
#define MPTL_PROGRAM_ARENA_H

#include <stddef.h>

#include "mptl/status.h"

/* A block that must keep its contents from time first to time last, both included. */
typedef struct mptl_block {
  size_t bytes;
  int first, last;
  size_t offset; /* result: a multiple of 64 */
} mptl_block;

/* Gives every block an offset so that blocks that live at the same time do not overlap; *total is the arena's size. Largest first,
 * each at the lowest offset where it fits. Blocks of 0 bytes get offset 0. */
MPTL_API mptl_status mptl_place_blocks(mptl_block *blocks, int n, size_t *total);

#endif
