/* Memory that programs share. */
#include "program/workspace.h"

#include <stdlib.h>

#include "core/memory.h"

mptl_status mptl_workspace_create(mptl_workspace **workspace) {
  *workspace = calloc(1, sizeof **workspace);
  return *workspace ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "workspace: no memory");
}

void mptl_workspace_destroy(mptl_workspace *w) {
  if (w == NULL) return;
  mptl_memory_free(w->arena);
  mptl_memory_free(w->scratch);
  free(w);
}

/* Frees before it allocates, so that the two never add up. */
static mptl_status grow(void **area, size_t *bytes, size_t wanted) {
  if (wanted <= *bytes && *area != NULL) return MPTL_OK;
  mptl_memory_free(*area);
  *area = mptl_memory_alloc(wanted);
  *bytes = *area ? wanted : 0;
  return *area ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "program: no memory for %zu bytes", wanted);
}

mptl_status mptl_workspace_reserve(mptl_workspace *w, size_t arena_bytes, size_t scratch_bytes) {
  void *arena = w->arena;
  mptl_status status = grow(&arena, &w->arena_bytes, arena_bytes);
  if (arena != w->arena) w->user = NULL;
  w->arena = arena;
  return status == MPTL_OK ? grow(&w->scratch, &w->scratch_bytes, scratch_bytes) : status;
}
