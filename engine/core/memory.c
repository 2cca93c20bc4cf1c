/* Aligned and counted allocation. A header in front of the returned memory keeps its size. */
#include "core/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "mptl/program.h"

#define HUGE_PAGE ((size_t)2 << 20)

typedef struct header {
  size_t bytes; /* of the whole allocation, with the header */
  void *block;
} header;

static atomic_size_t current, peak; /* bytes: now, and the most so far */

void mptl_memory_count(ptrdiff_t bytes) {
  size_t now = atomic_fetch_add(&current, (size_t)bytes) + (size_t)bytes, seen = atomic_load(&peak);
  while (bytes > 0 && now > seen && !atomic_compare_exchange_weak(&peak, &seen, now)) {
  }
}

void *mptl_memory_alloc(size_t bytes) {
  size_t align = bytes >= 4 * HUGE_PAGE ? HUGE_PAGE : 64, total;
  void *block = NULL;
  if (__builtin_add_overflow(bytes, 64, &total) || posix_memalign(&block, align, total) != 0)
    return NULL;
  if (align == HUGE_PAGE)
    madvise(block, total - total % HUGE_PAGE, MADV_HUGEPAGE); /* a hint; failure changes nothing */
  char *p = (char *)block + 64;
  ((header *)p)[-1] = (header){.bytes = total, .block = block};
  mptl_memory_count((ptrdiff_t)total);
  return p;
}

void mptl_memory_free(void *p) {
  if (p == NULL) return;
  header h = ((header *)p)[-1];
  mptl_memory_count(-(ptrdiff_t)h.bytes);
  free(h.block);
}

size_t mptl_memory_current(void) { return atomic_load(&current); }
size_t mptl_memory_peak(void) { return atomic_load(&peak); }
void mptl_memory_reset_peak(void) { atomic_store(&peak, atomic_load(&current)); }

bool mptl_grow(void *list, size_t *capacity, size_t count, size_t size) {
  void **p = list;
  if (count < *capacity) return true;
  size_t more = *capacity == 0 ? 64 : 2 * *capacity;
  void *grown = realloc(*p, more * size);
  if (grown == NULL) return false;
  *p = grown;
  *capacity = more;
  return true;
}
