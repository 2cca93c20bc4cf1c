/* Greedy placement: the largest block first. */
#include "program/arena.h"

#include <stdlib.h>

#include "core/memory.h"

static int by_size(const void *a, const void *b) {
  const mptl_block *x = *(mptl_block *const *)a, *y = *(mptl_block *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1
               : x > y; /* equal sizes in array order, so that every qsort gives the same result */
}

/* The lowest offset at which the block overlaps no placed block that lives at the same time. placed
 * is sorted by offset. */
static size_t lowest_offset(const mptl_block *block, mptl_block *const *placed, int n) {
  size_t offset = 0, bytes = mptl_aligned(block->bytes);
  for (int i = 0; i < n; i++) {
    const mptl_block *p = placed[i];
    if (p->last < block->first || block->last < p->first) continue;
    if (p->offset >= offset + bytes) break;
    if (p->offset + mptl_aligned(p->bytes) > offset) offset = p->offset + mptl_aligned(p->bytes);
  }
  return offset;
}

mptl_status mptl_place_blocks(mptl_block *blocks, int n, size_t *total) {
  mptl_block **order = calloc((size_t)n + 1, sizeof *order),
             **placed = calloc((size_t)n + 1, sizeof *placed);
  *total = 0;
  if (order == NULL || placed == NULL) {
    free(order);
    free(placed);
    return mptl_fail(MPTL_ENOMEM, "arena: no memory");
  }
  for (int i = 0; i < n; i++) order[i] = &blocks[i];
  qsort(order, (size_t)n, sizeof *order, by_size);
  int n_placed = 0;
  for (int i = 0; i < n; i++) {
    mptl_block *b = order[i];
    b->offset = 0;
    if (b->bytes == 0) continue;
    b->offset = lowest_offset(b, placed, n_placed);
    if (b->offset + mptl_aligned(b->bytes) > *total) *total = b->offset + mptl_aligned(b->bytes);
    int at = n_placed++;
    for (; at > 0 && placed[at - 1]->offset > b->offset; at--) placed[at] = placed[at - 1];
    placed[at] = b;
  }
  free(order);
  free(placed);
  return MPTL_OK;
}
