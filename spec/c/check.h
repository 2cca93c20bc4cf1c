/* A check of a spec: what is not true ends the function that returns 0 when all is well. */
#ifndef MPTL_SPEC_CHECK_H
#define MPTL_SPEC_CHECK_H

#include <stdio.h>

#include "mptl/status.h"

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, #condition, mptl_error()); \
      return 1;                                                                                    \
    }                                                                                              \
  } while (0)

#endif
