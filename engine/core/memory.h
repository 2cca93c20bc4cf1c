/* Memory of the engine: aligned, counted, so that the peak can be reported (mptl_memory_peak). */
#ifndef MPTL_CORE_MEMORY_H
#define MPTL_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

#include "mptl/status.h"

/* bytes, up to a multiple of what memory is aligned to. */
static inline size_t mptl_aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* bytes of memory, 64-byte aligned (2 MiB where that helps the page tables), uninitialised; NULL when it cannot be had. 0 bytes give
 * a pointer that may be freed. */
void *mptl_memory_alloc(size_t bytes);
void mptl_memory_free(void *p); /* NULL is allowed */

/* Makes room for one more element in a list from malloc that holds count of them; list is the address of its pointer, size an element's in
 * bytes. false, with all as it was, when there is no memory. */
bool mptl_grow(void *list, size_t *capacity, size_t count, size_t size);

/* Counts bytes that were taken (or, negative, given back) elsewhere: a device's. */
MPTL_API void mptl_memory_count(ptrdiff_t bytes);

#endif
