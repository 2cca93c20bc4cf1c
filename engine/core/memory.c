/* Aligned and counted allocation. The size stands in a header in front of the block. */
#include "core/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "mptl/program.h"

#define HUGE_PAGE ((size_t)2 << 20)

typedef struct header {
  size_t bytes; /* whole block, header included */
  void *block;
} header;

static atomic_size_t current, peak;

void *mptl_memory_alloc(size_t bytes) {
  size_t align = bytes >= 4 * HUGE_PAGE ? HUGE_PAGE : 64, total;
  void *block = NULL;
  if (__builtin_add_overflow(bytes, 64, &total) || posix_memalign(&block, align, total) != 0) return NULL;
  if (align == HUGE_PAGE) madvise(block, total - total % HUGE_PAGE, MADV_HUGEPAGE); /* a hint; failure changes nothing */
  char *p = (char *)block + 64;
  ((header *)p)[-1] = (header){.bytes = total, .block = block};
  size_t now = atomic_fetch_add(&current, total) + total, seen = atomic_load(&peak);
  while (now > seen && !atomic_compare_exchange_weak(&peak, &seen, now)) {
  }
  return p;
}

void mptl_memory_free(void *p) {
  if (p == NULL) return;
  header h = ((header *)p)[-1];
  atomic_fetch_sub(&current, h.bytes);
  free(h.block);
}

size_t mptl_memory_current(void) { return atomic_load(&current); }
size_t mptl_memory_peak(void) { return atomic_load(&peak); }
void mptl_memory_reset_peak(void) { atomic_store(&peak, atomic_load(&current)); }
