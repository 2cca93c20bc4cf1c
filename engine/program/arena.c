/* Greedy placement: the largest block first.
 *
 * To find the place of a block, the function does not go through all blocks that it has placed. It
 * divides the times into two halves, these again, and so on down to single times. For each of these
 * periods it keeps the offsets that some blocks occupy, as intervals: blocks side by side in memory
 * are one interval. Only few periods matter for a block, about three times the logarithm of the
 * number of times. So placement takes n log n steps if there are few different sizes, as in
 * networks; at worst, with gaps everywhere, n^2.
 */
#include "program/arena.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* ---- Sets of offsets ---- */

/* The offsets [begin, end). */
typedef struct interval {
  size_t begin, end;
} interval;

/* Offsets that are occupied: intervals in ascending order, with free offsets between them. */
typedef struct occupied {
  interval *list;
  size_t n, capacity;
} occupied;

/* Intervals of a set that are still to be looked at. */
typedef struct cursor {
  const interval *at, *end;
} cursor;

static cursor begin_of(const occupied *o) { return (cursor){o->list, o->list + o->n}; }

/* Moves the cursor over so many intervals if all of them end below `end`. */
static bool skip(cursor *c, ptrdiff_t count, size_t end) {
  if (count > c->end - c->at || c->at[count - 1].end >= end) return false;
  c->at += count;
  return true;
}

/* Skips all intervals that end below `end`. These are usually few, so the steps grow from 1 on. */
static void skip_all(cursor *c, size_t end) {
  ptrdiff_t step = 1;
  while (skip(c, step, end)) step *= 2;
  for (step /= 2; step > 0; step /= 2) skip(c, step, end);
}

/* The lowest offset, from `offset` on, where so many bytes are free. Moves the cursor there. */
static size_t lowest_free(cursor *c, size_t offset, size_t bytes) {
  skip_all(c, offset);
  for (; c->at < c->end && c->at->begin < offset + bytes; c->at++) offset = c->at->end;
  return offset;
}

/* Makes room for one more interval. Most sets stay small. */
static mptl_status grow(occupied *o) {
  if (o->n < o->capacity) return MPTL_OK;
  size_t capacity = o->capacity > 0 ? 2 * o->capacity : 2;
  interval *list = realloc(o->list, capacity * sizeof *list);
  if (list == NULL) return mptl_fail(MPTL_ENOMEM, "arena: no memory");
  o->list = list;
  o->capacity = capacity;
  return MPTL_OK;
}

/* Adds the offsets [begin, end), some of which may be in the set. */
static mptl_status occupy(occupied *o, size_t begin, size_t end) {
  MPTL_TRY(grow(o));
  cursor c = begin_of(o);
  skip_all(&c, begin);
  size_t first = (size_t)(c.at - o->list), next = first; /* first to next - 1 become one interval */
  for (; next < o->n && o->list[next].begin <= end; next++) {
    if (o->list[next].begin < begin) begin = o->list[next].begin;
    if (o->list[next].end > end) end = o->list[next].end;
  }
  memmove(&o->list[first + 1], &o->list[next], (o->n - next) * sizeof *o->list);
  o->list[first] = (interval){begin, end};
  o->n = o->n + 1 - (next - first);
  return MPTL_OK;
}

/* ---- The tree of periods ---- */

typedef struct period {
  occupied throughout; /* by blocks of whose lifetimes the period is a part (parts_of) */
  occupied within;     /* by these blocks, and by those whose first time is in the period */
} period;

typedef struct tree {
  int times;       /* a power of two */
  period *periods; /* 1: all times; 2 i and 2 i + 1: the halves of i; times + t: the time t */
} tree;

enum { MOST_HALVINGS = 30, MOST_PARTS = 2 * MOST_HALVINGS }; /* times is an int */

/* Divides a block's lifetime into as few periods as possible. Returns their number. */
static int parts_of(const tree *t, const mptl_block *b, period *parts[MOST_PARTS]) {
  int n = 0, i = t->times + b->first, j = t->times + b->last;
  for (; i <= j; i /= 2, j /= 2) {
    if (i % 2 == 1) parts[n++] = &t->periods[i++];
    if (j % 2 == 0) parts[n++] = &t->periods[j--];
  }
  return n;
}

static mptl_status make_tree(tree *t, const mptl_block *blocks, int n) {
  int last = 0;
  for (int i = 0; i < n; i++)
    if (blocks[i].last > last) last = blocks[i].last;
  for (t->times = 1; t->times <= last;) t->times *= 2;
  t->periods = calloc(2 * (size_t)t->times, sizeof *t->periods);
  return t->periods != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "arena: no memory");
}

static void free_tree(tree *t) {
  for (int i = 1; t->periods != NULL && i < 2 * t->times; i++) {
    free(t->periods[i].throughout.list);
    free(t->periods[i].within.list);
  }
  free(t->periods);
}

/* The lowest offset at which a block overlaps no placed block that lives at the same time. Such a
 * placed block begins in a part of this block's lifetime, or it lives already at this block's first
 * time, which then is in a part of its own lifetime. */
static size_t lowest_offset(const tree *t, const mptl_block *b) {
  period *parts[MOST_PARTS];
  cursor sets[MOST_PARTS + MOST_HALVINGS + 1];
  int n = 0;
  for (int i = parts_of(t, b, parts) - 1; i >= 0; i--)
    if (parts[i]->within.n > 0) sets[n++] = begin_of(&parts[i]->within);
  for (int i = t->times + b->first; i > 0; i /= 2)
    if (t->periods[i].throughout.n > 0) sets[n++] = begin_of(&t->periods[i].throughout);
  size_t before, offset = 0, bytes = mptl_aligned(b->bytes);
  do { /* until the place is free in all sets */
    before = offset;
    for (int i = 0; i < n; i++) offset = lowest_free(&sets[i], offset, bytes);
  } while (offset != before);
  return offset;
}

/* Adds a placed block to the tree. (`within` need not have the blocks that live throughout the
 * period. With them it has fewer gaps, so that lowest_offset finds places sooner.) */
static mptl_status add(tree *t, const mptl_block *b) {
  period *parts[MOST_PARTS];
  size_t begin = b->offset, end = begin + mptl_aligned(b->bytes);
  int n = parts_of(t, b, parts);
  for (int k = 0; k < n; k++) {
    MPTL_TRY(occupy(&parts[k]->throughout, begin, end));
    MPTL_TRY(occupy(&parts[k]->within, begin, end));
  }
  for (int i = t->times + b->first; i > 0; i /= 2)
    MPTL_TRY(occupy(&t->periods[i].within, begin, end));
  return MPTL_OK;
}

/* ---- Placement ---- */

static int by_size(const void *a, const void *b) {
  const mptl_block *x = *(mptl_block *const *)a, *y = *(mptl_block *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1
               : x > y; /* equal sizes in array order, so that every qsort gives the same result */
}

static mptl_status place_in_order(mptl_block **order, int n, tree *t, size_t *total) {
  for (int i = 0; i < n; i++) {
    mptl_block *b = order[i];
    b->offset = 0;
    if (b->bytes == 0) continue;
    b->offset = lowest_offset(t, b);
    MPTL_TRY(add(t, b));
    if (b->offset + mptl_aligned(b->bytes) > *total) *total = b->offset + mptl_aligned(b->bytes);
  }
  return MPTL_OK;
}

mptl_status mptl_place_blocks(mptl_block *blocks, int n, size_t *total) {
  mptl_block **order = calloc((size_t)n + 1, sizeof *order);
  tree t = {0};
  *total = 0;
  mptl_status status =
      order != NULL ? make_tree(&t, blocks, n) : mptl_fail(MPTL_ENOMEM, "arena: no memory");
  if (status == MPTL_OK) {
    for (int i = 0; i < n; i++) order[i] = &blocks[i];
    qsort(order, (size_t)n, sizeof *order, by_size);
    status = place_in_order(order, n, &t, total);
  }
  free_tree(&t);
  free(order);
  return status;
}
