/* The arena's placement: blocks that live at the same time never overlap, each is where the greedy
 * rule puts it, and little room is wasted. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "program/arena.h"

static int failures;

static void expect(int ok, const char *what, int round) {
  if (ok) return;
  fprintf(stderr, "round %d: %s\n", round, what);
  failures++;
}

static uint32_t state = 1;

static uint32_t draw(uint32_t n) { return (state = state * 1664525u + 1013904223u) / 4096u % n; }

/* The most bytes that live at one time: no placement can take less. */
static size_t floor_of(const mptl_block *blocks, int n, int times) {
  size_t most = 0;
  for (int t = 0; t < times; t++) {
    size_t sum = 0;
    for (int i = 0; i < n; i++)
      if (blocks[i].first <= t && t <= blocks[i].last) sum += (blocks[i].bytes + 63) / 64 * 64;
    if (sum > most) most = sum;
  }
  return most;
}

static int overlap(const mptl_block *a, const mptl_block *b) {
  int in_time = a->first <= b->last && b->first <= a->last;
  return in_time && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

/* Whether block a is placed before block b: the larger one, of equal ones the first. */
static int before(const mptl_block *a, const mptl_block *b) {
  return a->bytes != b->bytes ? a->bytes > b->bytes : a < b;
}

/* Whether a block could be at that offset, among those placed before it. */
static int fits(mptl_block block, size_t offset, const mptl_block *blocks, int n, int i) {
  block.offset = offset;
  for (int k = 0; k < n; k++)
    if (k != i && before(&blocks[k], &blocks[i]) && overlap(&block, &blocks[k])) return 0;
  return 1;
}

/* A block has the lowest offset where it fits: 0, or the end of a block placed before it. */
static void check_lowest(const mptl_block *blocks, int n, int round) {
  for (int i = 0; i < n; i++) {
    const mptl_block *b = &blocks[i];
    expect(b->bytes > 0 || b->offset == 0, "an empty block is not at offset 0", round);
    if (b->bytes == 0 || b->offset == 0) continue;
    expect(!fits(*b, 0, blocks, n, i), "a block fits at a lower offset", round);
    for (int k = 0; k < n; k++) {
      size_t end = blocks[k].offset + (blocks[k].bytes + 63) / 64 * 64;
      if (end < b->offset && before(&blocks[k], b))
        expect(!fits(*b, end, blocks, n, i), "a block fits at a lower offset", round);
    }
  }
}

static void check(mptl_block *blocks, int n, int times, double waste, int round) {
  size_t total, least = floor_of(blocks, n, times);
  expect(mptl_place_blocks(blocks, n, &total) == MPTL_OK, "placement fails", round);
  for (int i = 0; i < n; i++) {
    expect(blocks[i].offset % 64 == 0, "an offset is not a multiple of 64", round);
    expect(blocks[i].offset + blocks[i].bytes <= total, "a block ends beyond the arena", round);
    for (int k = 0; k < i; k++)
      expect(!overlap(&blocks[i], &blocks[k]), "two blocks overlap", round);
  }
  check_lowest(blocks, n, round);
  expect(total >= least && (double)total <= waste * (double)least, "the arena is too large", round);
}

/* Forward values that live until their backward, and gradients between neighbours: a chain of
 * operators in training. sizes: how many different ones there are. */
static void chain(int n, uint32_t sizes, double waste, int round) {
  mptl_block *blocks = calloc(2 * (size_t)n, sizeof *blocks);
  if (blocks == NULL) exit(1);
  for (int i = 0; i < n; i++) {
    size_t bytes = 64 * (1 + draw(sizes)) - draw(2);
    int backward = 2 * n - 1 - i;
    blocks[2 * i] = (mptl_block){.bytes = bytes, .first = i, .last = draw(3) ? backward : i + 1};
    blocks[2 * i + 1] =
        (mptl_block){.bytes = i ? bytes : 0, .first = backward - 1, .last = backward};
  }
  check(blocks, 2 * n, 2 * n, waste, round);
  free(blocks);
}

int main(void) {
  size_t total;
  expect(mptl_place_blocks(NULL, 0, &total) == MPTL_OK && total == 0, "nothing takes room", 0);

  mptl_block apart[] = {{100, 0, 1, 0}, {100, 2, 3, 0}},
             together[] = {{100, 0, 2, 0}, {100, 2, 3, 0}, {0, 0, 9, 0}};
  check(apart, 2, 4, 1, 0);
  expect(apart[0].offset == 0 && apart[1].offset == 0, "blocks of different times share a place",
         0);
  check(together, 3, 10, 1, 0);

  for (int round = 1; round <= 200; round++) {
    mptl_block blocks[60];
    for (int i = 0; i < 60; i++) {
      int first = (int)draw(40);
      blocks[i] = (mptl_block){.bytes = draw(5000), .first = first, .last = first + (int)draw(12)};
    }
    check(blocks, 60, 60, 1.5, round);
    chain(2 + (int)draw(60), 1000, 1.3, round);
    chain(2 + (int)draw(60), 4, 1.5, round);
  }
  printf("arena: %d failures\n", failures);
  return failures != 0;
}
