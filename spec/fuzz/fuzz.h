/* For libFuzzer's targets: checks that must hold for any input. */
#ifndef MPTL_SPEC_FUZZ_H
#define MPTL_SPEC_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mptl/status.h"

#define HOLDS(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: not true: %s (%s)\n", __FILE__, __LINE__, #condition, mptl_error()); \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

/* A failure has a message of one line. */
static inline void has_message(mptl_status status) {
  if (status != MPTL_OK) HOLDS(mptl_error()[0] != '\0' && strchr(mptl_error(), '\n') == NULL);
}

#endif
