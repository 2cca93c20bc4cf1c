/* Memory of the engine: aligned and counted, so that peak memory can be reported
 * (mptl_memory_peak). */
#ifndef MPTL_CORE_MEMORY_H
#define MPTL_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "mptl/status.h"

/* bytes, rounded up to a multiple of the alignment. */
static inline size_t mptl_aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Allocates uninitialised memory, aligned to 64 bytes (large blocks to 2 MiB, for huge pages),
 * which the caller frees with mptl_memory_free. NULL if there is not enough memory. 0 bytes give a
 * pointer that may be freed. */
void *mptl_memory_alloc(size_t bytes);
void mptl_memory_free(void *p); /* NULL is allowed */

/* Makes room for one more element in a list from malloc that holds `count` elements. list is the
 * address of its pointer, size the bytes of an element. Returns false, and changes nothing, if
 * there is no memory. */
bool mptl_grow(void *list, size_t *capacity, size_t count, size_t size);

/* Counts bytes that were allocated (negative: freed) elsewhere, in the memory of a device. */
MPTL_API void mptl_memory_count(ptrdiff_t bytes);

#endif
