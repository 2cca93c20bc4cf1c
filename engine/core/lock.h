/* Locks on files, on file systems with and without locks. */
#ifndef MPTL_CORE_LOCK_H
#define MPTL_CORE_LOCK_H

#include <stdbool.h>

#include "mptl/status.h"

/* Whether the environment has MPTL_LOCKS=none: then files are used without locks if their file
 * system has none. */
MPTL_API bool mptl_locks_optional(void);

/* Returns MPTL_EIO for a lock on path that failed with this errno, but not because another process
 * holds it. */
MPTL_API mptl_status mptl_fail_lock(const char *path, int error);

#endif
