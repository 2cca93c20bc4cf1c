/* Memory of the engine: aligned, counted, so that the peak can be reported (mptl_memory_peak). */
#ifndef MPTL_CORE_MEMORY_H
#define MPTL_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "mptl/status.h"

/* bytes, rounded up to a multiple of the alignment. */
static inline size_t mptl_aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Allocates uninitialised memory, aligned to 64 bytes (large blocks to 2 MiB, for huge pages); NULL
 * when there is not enough. 0 bytes give a pointer that may be freed. */
void *mptl_memory_alloc(size_t bytes);
void mptl_memory_free(void *p); /* NULL is allowed */

/* Makes room for one more element in a list from malloc that holds count of them; list is the
 * address of its pointer, size the bytes of an element. When there is no memory it returns false
 * and changes nothing. */
bool mptl_grow(void *list, size_t *capacity, size_t count, size_t size);

/* Counts bytes that were allocated (or, negative, freed) elsewhere: in a device's memory. */
MPTL_API void mptl_memory_count(ptrdiff_t bytes);

#endif
