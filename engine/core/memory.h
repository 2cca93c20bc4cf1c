/* Memory of the engine: aligned, counted, so that the peak can be reported (mptl_memory_peak). */
#ifndef MPTL_CORE_MEMORY_H
#define MPTL_CORE_MEMORY_H

#include <stddef.h>

/* bytes of memory, 64-byte aligned (2 MiB where that helps the page tables), uninitialised; NULL when it cannot be had. 0 bytes give
 * a pointer that may be freed. */
void *mptl_memory_alloc(size_t bytes);
void mptl_memory_free(void *p); /* NULL is allowed */

#endif
