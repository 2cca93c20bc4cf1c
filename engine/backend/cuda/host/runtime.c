/* A device that is none: the kernels run on the host, one launch at a time, and device memory is a range of addresses that is closed to
 * the program between launches and copies. So what would be a crash on a GPU, the host reading a device's memory, is one here, too; and an
 * address of the host's that is handed to a kernel ends the program with a message. For tests.
 */
#include "backend/cuda/runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RANGE_BYTES ((size_t)8 << 30) /* of addresses; memory is taken when it is touched */
#define ALIGN 256

static struct {
  char *base;  /* NULL before the device is opened */
  size_t used; /* bytes from base on that have ever been allocated */
  int entered; /* brackets that are open */
} range;

/* What is allocated, in the order of addresses. */
typedef struct block {
  size_t offset, bytes;
  struct block *next;
} block;

static block *blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

_Noreturn static void stop(const char *what, const void *p) {
  fprintf(stderr, "CUDA backend on the host: %s (%p)\n", what, p);
  abort();
}

static void protect(int how) {
  if (range.used > 0 && mprotect(range.base, range.used, how) != 0) stop("mprotect failed", range.base);
}

void mptl_cuda_enter(void) {
  if (range.entered++ == 0) protect(PROT_READ | PROT_WRITE);
}

void mptl_cuda_leave(void) {
  if (--range.entered == 0) protect(PROT_NONE);
}

/* MPTL_CUDA_HOST_FAILS in the environment: launches whose text has that in it fail, all others do not. */
mptl_status mptl_cuda_leave_call(int error, const char *call) {
  const char *fails = getenv("MPTL_CUDA_HOST_FAILS");
  if (fails != NULL && strstr(call, fails) != NULL) error = 719;
  mptl_cuda_leave();
  return error == 0 ? MPTL_OK : mptl_fail(MPTL_EBACKEND, "CUDA, starting %.120s: error %d", call, error);
}

mptl_status mptl_cuda_runtime_settle(const char *what) {
  (void)what; /* all work is done at once */
  return MPTL_OK;
}

void *mptl_cuda_address(const void *p) {
  if (p != NULL && ((const char *)p < range.base || (const char *)p >= range.base + range.used))
    stop("an address of the host's is handed to the device", p);
  return (void *)p;
}

/* ---- The device ---- */

mptl_status mptl_cuda_runtime_count(int *devices) {
  *devices = 1;
  return MPTL_OK;
}

mptl_status mptl_cuda_runtime_describe(int device, char *text, size_t size) {
  (void)device;
  snprintf(text, size, "no GPU: the kernels on the host, for tests");
  return MPTL_OK;
}

mptl_status mptl_cuda_runtime_open(int device) {
  (void)device;
  if (range.base != NULL) return MPTL_OK;
  void *base = mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return mptl_fail(MPTL_ENOMEM, "no range of addresses of %zu bytes", RANGE_BYTES);
  range.base = base;
  return MPTL_OK;
}

int mptl_cuda_runtime_device(void) { return 0; }
mptl_cuda_stream mptl_cuda_runtime_stream(void) { return NULL; }
/* MPTL_CUDA_HOST_CAPABILITY in the environment: what it pretends to be, 90 if not said. */
int mptl_cuda_runtime_capability(void) {
  const char *text = getenv("MPTL_CUDA_HOST_CAPABILITY");
  return text != NULL ? atoi(text) : 90;
}

int mptl_cuda_runtime_multiprocessors(void) { return 2; } /* as the kernels are told (shim.h) */

/* ---- Memory: first fit, the beginning of each block filled with NaNs ---- */

enum { FILLED = 1 << 20 }; /* bytes: more costs time, for pages that may never be used */

static size_t place(size_t bytes, block ***after) {
  size_t offset = 0;
  *after = &blocks;
  for (block *b = blocks; b != NULL && b->offset < offset + bytes; b = b->next) {
    offset = b->offset + b->bytes;
    *after = &b->next;
  }
  return offset;
}

static void *allocate(size_t bytes) {
  if (bytes > RANGE_BYTES / 2) return NULL;
  block *b = malloc(sizeof *b), **after;
  if (b == NULL) return NULL;
  b->bytes = (bytes + (bytes == 0) + ALIGN - 1) / ALIGN * ALIGN;
  pthread_mutex_lock(&lock);
  b->offset = place(b->bytes, &after);
  bool fits = b->offset + b->bytes <= RANGE_BYTES;
  if (fits) {
    b->next = *after;
    *after = b;
    if (b->offset + b->bytes > range.used) range.used = b->offset + b->bytes;
  }
  pthread_mutex_unlock(&lock);
  if (!fits) {
    free(b);
    return NULL;
  }
  char *p = range.base + b->offset;
  mptl_cuda_enter();
  memset(p, 0xff, b->bytes < FILLED ? b->bytes : FILLED);
  mptl_cuda_leave();
  mptl_memory_count((ptrdiff_t)b->bytes);
  return p;
}

static void release(void *p) {
  if (p == NULL) return;
  pthread_mutex_lock(&lock);
  block **at = &blocks;
  while (*at != NULL && range.base + (*at)->offset != p) at = &(*at)->next;
  block *b = *at;
  if (b == NULL) stop("freed, but not allocated", p);
  *at = b->next;
  pthread_mutex_unlock(&lock);
  mptl_memory_count(-(ptrdiff_t)b->bytes);
  free(b);
}

static mptl_status upload(void *to, const void *host, size_t bytes) {
  mptl_cuda_enter();
  memcpy(mptl_cuda_address(to), host, bytes);
  mptl_cuda_leave();
  return MPTL_OK;
}

/* What is lent has to stay as it is until a wait: looked at there, by a sum over its bytes. */
static struct {
  const uint8_t *host;
  size_t bytes;
  uint64_t sum;
} lent;

static uint64_t sum_of(const uint8_t *p, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes; i++) sum = sum * 1099511628211u + p[i];
  return sum;
}

static void look_at_lent(void) {
  if (lent.host != NULL && sum_of(lent.host, lent.bytes) != lent.sum) stop("lent memory was changed before a wait", lent.host);
  lent.host = NULL;
}

static mptl_status lend(void *to, const void *host, size_t bytes) {
  look_at_lent();
  lent.host = host, lent.bytes = bytes, lent.sum = sum_of(host, bytes);
  return upload(to, host, bytes);
}

static mptl_status download(void *host, const void *from, size_t bytes) {
  look_at_lent();
  mptl_cuda_enter();
  memcpy(host, mptl_cuda_address(from), bytes);
  mptl_cuda_leave();
  return MPTL_OK;
}

static mptl_status zero(void *p, size_t bytes) {
  mptl_cuda_enter();
  memset(mptl_cuda_address(p), 0, bytes);
  mptl_cuda_leave();
  return MPTL_OK;
}

mptl_status mptl_cuda_runtime_copy(void *to, const void *from, size_t bytes) {
  mptl_cuda_enter();
  memcpy(mptl_cuda_address(to), mptl_cuda_address(from), bytes);
  mptl_cuda_leave();
  return MPTL_OK;
}

static mptl_status synchronize(void) {
  look_at_lent();
  return MPTL_OK;
}

static void *host_alloc(size_t bytes) { return mptl_host_memory.host_alloc(bytes); }
static void host_free(void *p) { mptl_host_memory.host_free(p); }

const mptl_memory mptl_cuda_memory = {.is_host = false,
                                      .alloc = allocate,
                                      .free = release,
                                      .upload = upload,
                                      .download = download,
                                      .zero = zero,
                                      .synchronize = synchronize,
                                      .host_alloc = host_alloc,
                                      .host_free = host_free,
                                      .lend = lend};
