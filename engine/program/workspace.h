/* For programs: a workspace from the inside. */
#ifndef MPTL_PROGRAM_WORKSPACE_H
#define MPTL_PROGRAM_WORKSPACE_H

#include "backend/backend.h"
#include "mptl/program.h"

struct mptl_workspace {
  mptl_device *device;
  char *arena;   /* outputs and gradients */
  void *scratch; /* of operators */
  size_t arena_bytes, scratch_bytes;
  const mptl_program *user; /* whose values are in the arena */
};

/* Makes both areas at least as large; when one has to move, its contents are lost. */
mptl_status mptl_workspace_reserve(mptl_workspace *workspace, size_t arena_bytes, size_t scratch_bytes);

#endif
