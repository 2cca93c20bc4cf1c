/* A clock for timing. */
#ifndef MPTL_CORE_CLOCK_H
#define MPTL_CORE_CLOCK_H

#include <time.h>

/* Seconds since an arbitrary moment. It never decreases. */
static inline double mptl_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
