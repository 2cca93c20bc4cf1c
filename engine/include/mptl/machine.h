/* What this process may use of the machine: processors and memory, by what the system allows it. */
#ifndef MPTL_MACHINE_H
#define MPTL_MACHINE_H

#include <stdint.h>

#include "mptl/status.h"

typedef struct mptl_processors {
  int online;           /* processors of the machine */
  int allowed;          /* those that the process may run on (affinity) */
  double quota;         /* processors' worth of time that its control groups leave it; 0 when they set no limit */
  char quota_file[512]; /* the file that says so */
  int usable;           /* threads that can compute at once: whole ones, at least 1 */
} mptl_processors;

/* root, which is "" but in tests, stands in front of /proc and /sys. */
MPTL_API mptl_processors mptl_find_processors(const char *root);

enum { MPTL_MAX_THREADS = 1024 };

/* Threads that compute where nobody says how many: what OMP_NUM_THREADS asks for, else as many as are usable. */
MPTL_API int mptl_default_threads(const char *root);

typedef struct mptl_memory_limit {
  uint64_t bytes;    /* that may be taken in addition; UINT64_MAX when nothing is known */
  char limiter[512]; /* what leaves no more: "RLIMIT_AS", a control group's file, "physical memory" */
} mptl_memory_limit;

/* The least of what the limit of the address space, the control groups and the machine (its swap space included) leave. Memory that
 * others have taken is not looked at: it may be given back. */
MPTL_API mptl_memory_limit mptl_find_memory(const char *root);

#endif
