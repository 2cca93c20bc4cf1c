/* Locks on files, where a file system has them. */
#ifndef MPTL_CORE_LOCK_H
#define MPTL_CORE_LOCK_H

#include <stdbool.h>

#include "mptl/status.h"

/* Whether the environment says MPTL_LOCKS=none: files are used without locks where the file system has none. */
MPTL_API bool mptl_locks_optional(void);

/* An error for a lock on path that failed with this errno, not because another process has it: MPTL_EIO. */
MPTL_API mptl_status mptl_fail_lock(const char *path, int error);

#endif
