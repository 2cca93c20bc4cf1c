/* Checks of C specs. When a condition is false they print a line that says so; then CHECK makes its
 * function return 1 (0 is success), and MUST ends the program with status 1. */
#ifndef MPTL_SPEC_CHECK_H
#define MPTL_SPEC_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "mptl/status.h"

#define MPTL_SPEC_FALSE(text) \
  fprintf(stderr, "%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, text, mptl_error())

#define CHECK(condition)           \
  do {                             \
    if (!(condition)) {            \
      MPTL_SPEC_FALSE(#condition); \
      return 1;                    \
    }                              \
  } while (0)

#define MUST(condition)            \
  do {                             \
    if (!(condition)) {            \
      MPTL_SPEC_FALSE(#condition); \
      exit(1);                     \
    }                              \
  } while (0)

#endif
