/* Locks on files: what to do where a file system has none. */
#ifndef MPTL_CORE_LOCK_H
#define MPTL_CORE_LOCK_H

#include <stdbool.h>

#include "mptl/status.h"

/* Whether the environment has MPTL_LOCKS=none: then, on a file system without locks, files are used
 * without them. */
MPTL_API bool mptl_locks_optional(void);

/* MPTL_EIO for a lock on path that failed with this errno, for another reason than that another
 * process holds it. */
MPTL_API mptl_status mptl_fail_lock(const char *path, int error);

#endif
