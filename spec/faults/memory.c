/* A library to preload (LD_PRELOAD) into a program, to make its allocations fail. It counts the
 * allocations of mptl's own modules (libmptl and the Lua module; not Lua, nor the libraries) and
 * makes the n-th one fail. For glibc.
 *
 * FAULTS_MEMORY  n, from 1; 0 only counts
 * FAULTS_LOG     a file that gets a line at the end: "allocations 1234"
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);

enum { CALLERS = 4096 };

static bool on;
static long at;
static atomic_long count;
static atomic_uintptr_t
    callers[CALLERS]; /* a cache: twice the address of a caller, + 1 if it is mptl's */

__attribute__((constructor)) static void prepare(void) {
  const char *n = getenv("FAULTS_MEMORY");
  on = n != NULL;
  at = on ? atol(n) : 0;
}

__attribute__((destructor)) static void report(void) {
  const char *log = getenv("FAULTS_LOG");
  if (!on || count == 0 || log == NULL) return;
  int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return;
  dprintf(fd, "allocations %ld\n", atomic_load(&count));
  close(fd);
}

static bool is_mptl(const void *caller) {
  atomic_uintptr_t *known = &callers[((uintptr_t)caller >> 2) % CALLERS];
  uintptr_t entry = atomic_load_explicit(known, memory_order_relaxed);
  if (entry >> 1 == (uintptr_t)caller) return entry & 1;
  Dl_info about;
  bool is = dladdr(caller, &about) != 0 && about.dli_fname != NULL &&
            (strstr(about.dli_fname, "/libmptl.so") != NULL ||
             strstr(about.dli_fname, "/mptl/core.so") != NULL);
  atomic_store_explicit(known, (uintptr_t)caller << 1 | is, memory_order_relaxed);
  return is;
}

/* Whether this allocation fails. */
static bool fails(const void *caller) {
  if (!on || !is_mptl(caller) || atomic_fetch_add(&count, 1) + 1 != at) return false;
  errno = ENOMEM;
  return true;
}

#define FAILS() fails(__builtin_extract_return_addr(__builtin_return_address(0)))

void *malloc(size_t size) { return FAILS() ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return FAILS() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t size) { return FAILS() ? NULL : __libc_realloc(p, size); }
void *aligned_alloc(size_t align, size_t size) {
  return FAILS() ? NULL : __libc_memalign(align, size);
}

int posix_memalign(void **p, size_t align, size_t size) {
  if (FAILS()) return ENOMEM;
  void *q = __libc_memalign(align, size);
  if (q == NULL) return ENOMEM;
  *p = q;
  return 0;
}

char *strdup(const char *text) {
  size_t size = strlen(text) + 1;
  char *copy = FAILS() ? NULL : __libc_malloc(size);
  return copy != NULL ? memcpy(copy, text, size) : NULL;
}

int vasprintf(char **text, const char *format, va_list list) {
  va_list again;
  va_copy(again, list);
  int length = vsnprintf(NULL, 0, format, again);
  va_end(again);
  *text = length < 0 ? NULL : __libc_malloc((size_t)length + 1);
  return *text != NULL ? vsnprintf(*text, (size_t)length + 1, format, list) : -1;
}

static int print(bool no_memory, char **text, const char *format, va_list list) {
  *text = NULL;
  return no_memory ? -1 : vasprintf(text, format, list);
}

int asprintf(char **text, const char *format, ...) {
  va_list list;
  va_start(list, format);
  int length = print(FAILS(), text, format, list);
  va_end(list);
  return length;
}

int __asprintf_chk(char **text, int flag, const char *format, ...) {
  (void)flag;
  va_list list;
  va_start(list, format);
  int length = print(FAILS(), text, format, list);
  va_end(list);
  return length;
}
