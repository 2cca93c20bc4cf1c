/* Workspaces: memory that programs share. See mptl/program.h. */
#include "program/workspace.h"

#include <stdlib.h>

mptl_status mptl_workspace_create(mptl_workspace **workspace, mptl_device *device) {
  *workspace = calloc(1, sizeof **workspace);
  if (*workspace == NULL) return mptl_fail(MPTL_ENOMEM, "workspace: no memory");
  (*workspace)->device = mptl_device_retain(device);
  return MPTL_OK;
}

void mptl_workspace_destroy(mptl_workspace *w) {
  if (w == NULL) return;
  w->device->backend->free(w->device, w->arena);
  w->device->backend->free(w->device, w->scratch);
  mptl_device_close(w->device);
  free(w);
}

/* Makes an area at least `wanted` bytes large. Frees the old area before it allocates, so that both
 * never exist at once. */
static mptl_status grow(mptl_device *device, void **area, size_t *bytes, size_t wanted) {
  if (wanted <= *bytes && *area != NULL) return MPTL_OK;
  device->backend->free(device, *area);
  *area = device->backend->alloc(device, wanted);
  *bytes = *area ? wanted : 0;
  return *area ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "program: no memory for %zu bytes", wanted);
}

mptl_status mptl_workspace_reserve(mptl_workspace *w, size_t arena_bytes, size_t scratch_bytes) {
  void *arena = w->arena;
  mptl_status status = grow(w->device, &arena, &w->arena_bytes, arena_bytes);
  if (arena != w->arena) w->user = NULL;
  w->arena = arena;
  return status == MPTL_OK ? grow(w->device, &w->scratch, &w->scratch_bytes, scratch_bytes)
                           : status;
}
