#include "core/lock.h"

#include <stdlib.h>
#include <string.h>

bool mptl_locks_optional(void) {
  const char *value = getenv("MPTL_LOCKS");
  return value != NULL && strcmp(value, "none") == 0;
}

mptl_status mptl_fail_lock(const char *path, int error) {
  return mptl_fail(MPTL_EIO,
                   "cannot lock %s: %s; if no other process uses these files, set MPTL_LOCKS=none",
                   path, strerror(error));
}
