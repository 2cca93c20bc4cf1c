/* The workspace, for the files of this folder. */
#ifndef MPTL_PROGRAM_WORKSPACE_H
#define MPTL_PROGRAM_WORKSPACE_H

#include "backend/backend.h"
#include "mptl/program.h"

struct mptl_workspace {
  mptl_device *device;
  char *arena;   /* outputs and gradients */
  void *scratch; /* the scratch memory of stages */
  size_t arena_bytes, scratch_bytes;
  const mptl_program *user; /* the program whose values are in the arena */
};

/* Makes arena and scratch memory at least so large. An area that grows loses its contents; if the
 * arena does, the workspace has no user any more. Fails with MPTL_ENOMEM. */
mptl_status mptl_workspace_reserve(mptl_workspace *workspace, size_t arena_bytes,
                                   size_t scratch_bytes);

#endif
