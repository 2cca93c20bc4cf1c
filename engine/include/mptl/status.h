/* Status codes and error messages.
 *
 * Every engine call that can fail returns a status; mptl_error() returns the message of the last
 * failure on this thread. A message is one line that names the thing, the value that came and what
 * is accepted. The library never prints or exits.
 */
#ifndef MPTL_STATUS_H
#define MPTL_STATUS_H

#if defined(__GNUC__)
#define MPTL_API __attribute__((visibility("default")))
#define MPTL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MPTL_API
#define MPTL_PRINTF(fmt, args)
#endif

typedef enum mptl_status {
  MPTL_OK = 0,
  MPTL_EINVAL,       /* a wrong argument: the caller's mistake */
  MPTL_ENOMEM,       /* not enough memory */
  MPTL_EIO,          /* a file could not be opened, read or written */
  MPTL_EDATA,        /* a file was read and its contents are wrong */
  MPTL_EUNSUPPORTED, /* valid, but not supported by this build, device or library */
  MPTL_EBACKEND,     /* a library (oneDNN, CUDA) failed */
} mptl_status;

/* The message of the last failure on this thread, "" if there was none. Valid until the next
 * failure on this thread. */
MPTL_API const char *mptl_error(void);

/* Sets the message of mptl_error() and returns status, so that a caller can write `return
 * mptl_fail(...)`. */
MPTL_API mptl_status mptl_fail(mptl_status status, const char *format, ...) MPTL_PRINTF(2, 3);

/* Puts context before the current message, "CONTEXT: MESSAGE". Returns status. */
MPTL_API mptl_status mptl_fail_in(mptl_status status, const char *format, ...) MPTL_PRINTF(2, 3);

/* Returns from the calling function with the status of expr unless it is MPTL_OK. */
#define MPTL_TRY(expr)                                        \
  do {                                                        \
    mptl_status mptl_try_status_ = (expr);                    \
    if (mptl_try_status_ != MPTL_OK) return mptl_try_status_; \
  } while (0)

#endif
