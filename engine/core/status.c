/* Error messages, one per thread. */
#include "mptl/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_SIZE 1024

static _Thread_local char message[MESSAGE_SIZE];

const char *mptl_error(void) { return message; }

mptl_status mptl_fail(mptl_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return status;
}

mptl_status mptl_fail_in(mptl_status status, const char *format, ...) {
  char previous[MESSAGE_SIZE];
  va_list args;
  memcpy(previous, message, sizeof previous);
  va_start(args, format);
  int n = vsnprintf(message, sizeof message, format, args);
  va_end(args);
  if (n >= 0 && (size_t)n < sizeof message)
    snprintf(message + n, sizeof message - (size_t)n, ": %s", previous);
  return status;
}
