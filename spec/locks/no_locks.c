/* A library to preload (LD_PRELOAD), with which locking a file always fails, as on a file system
 * without locks. NO_LOCKS is the number of the error (ENOLCK, EOPNOTSUPP). For glibc. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>

static int refuse(void) {
  const char *number = getenv("NO_LOCKS");
  errno = number != NULL ? atoi(number) : ENOLCK;
  return -1;
}

int flock(int fd, int operation) {
  (void)fd, (void)operation;
  return refuse();
}

static int pass_on(const char *name, int fd, int command, void *argument) {
  if (command == F_SETLK || command == F_SETLKW || command == F_GETLK) return refuse();
  int (*next)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
  return next(fd, command, argument);
}

int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  return pass_on("fcntl", fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  return pass_on("fcntl64", fd, command, argument);
}
