/* The processors and the memory of the machine that this process may use. */
#ifndef MPTL_MACHINE_H
#define MPTL_MACHINE_H

#include <stdint.h>

#include "mptl/status.h"

typedef struct mptl_processors {
  int online;   /* processors of the machine */
  int allowed;  /* processors that the process may run on (affinity) */
  double quota; /* processor time that its control groups allow, in processors; 0: no limit */
  char quota_file[512]; /* the file with that limit */
  int usable;           /* threads that can compute at the same time, at least 1 */
} mptl_processors;

/* root is put before /proc and the mount points of control groups; it is "" except in specs. */
MPTL_API mptl_processors mptl_find_processors(const char *root);

enum { MPTL_MAX_THREADS = 1024 };

/* The default number of threads that compute: OMP_NUM_THREADS if it is set, else `usable`. */
MPTL_API int mptl_default_threads(const char *root);

typedef struct mptl_memory_limit {
  uint64_t bytes; /* that may be allocated in addition; UINT64_MAX: no limit is known */
  /* what sets that limit: "RLIMIT_AS", a control group's file, "physical memory" */
  char limiter[512];
} mptl_memory_limit;

/* The least of what the limit of the address space, the control groups and the machine (with its
 * swap space) leave to this process. Memory of other processes counts as free, since they may free
 * it. */
MPTL_API mptl_memory_limit mptl_find_memory(const char *root);

#endif
