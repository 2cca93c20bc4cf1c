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

/* Memory of a device, as its backend offers it. Work on it is done in the order in which it is asked for, and may still be under way
 * when a call returns; what fails then is told by the next download or synchronize. */
typedef struct mptl_memory {
  bool is_host;                 /* the host may read and write it */
  void *(*alloc)(size_t bytes); /* 64-byte aligned, counted, uninitialised; NULL when it cannot be had; never NULL for 0 bytes */
  void (*free)(void *p);        /* NULL is allowed */
  mptl_status (*upload)(void *to, const void *host, size_t bytes);     /* host may be overwritten when it returns */
  mptl_status (*download)(void *host, const void *from, size_t bytes); /* returns when all is there */
  mptl_status (*zero)(void *p, size_t bytes);
  mptl_status (*synchronize)(void); /* waits for all work */

  /* For what comes and goes at every step: memory of the host that the device reads and writes by itself, 64-byte aligned, not counted,
   * uninitialised (NULL when it cannot be had); and an upload of something that keeps its contents until the next download or
   * synchronize, so that no copy of such memory is made on the way. */
  void *(*host_alloc)(size_t bytes);
  void (*host_free)(void *p); /* NULL is allowed */
  mptl_status (*lend)(void *to, const void *host, size_t bytes);
} mptl_memory;

/* The host's: what mptl_memory_alloc gives. */
MPTL_API extern const mptl_memory mptl_host_memory;

#endif
