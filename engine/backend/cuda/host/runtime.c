/* A device for tests without a GPU: the kernels run on the host. Device memory is a range of
 * addresses that is inaccessible between launches and copies: if the host reads device memory, the
 * program crashes as it would with a GPU. If a kernel gets a host address, the program ends with a
 * message.
 */
#include "backend/cuda/runtime.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* of addresses; pages take memory when they are first used */
#define RANGE_BYTES ((size_t)8 << 30)
#define ALIGN 256

/* An allocation. The list has the order of addresses. */
typedef struct block {
  size_t offset, bytes;
  struct block *next;
} block;

/* Lent host memory, which must not change until the next wait. The wait checks a sum over its
 * bytes. */
typedef struct loan {
  const uint8_t *host;
  size_t bytes;
  uint64_t sum;
} loan;

/* Each device has its own range of addresses. */
struct mptl_cuda_runtime {
  char *base;  /* of the range */
  size_t used; /* bytes from base on that have ever been allocated */
  int entered; /* calls of enter without leave */
  block *blocks;
  loan lent;
  pthread_mutex_t lock; /* of blocks and used: loader threads free memory, too */
};

_Noreturn static void stop(const char *what, const void *p) {
  fprintf(stderr, "CUDA backend on the host: %s (%p)\n", what, p);
  abort();
}

static void protect(struct mptl_cuda_runtime *r, int how) {
  if (r->used > 0 && mprotect(r->base, r->used, how) != 0) stop("mprotect failed", r->base);
}

void mptl_cuda_enter(mptl_cuda_device *d) {
  if (d->runtime->entered++ == 0) protect(d->runtime, PROT_READ | PROT_WRITE);
}

void mptl_cuda_leave(mptl_cuda_device *d) {
  if (--d->runtime->entered == 0) protect(d->runtime, PROT_NONE);
}

/* MPTL_CUDA_HOST_FAILS in the environment: launches whose text contains it fail. */
mptl_status mptl_cuda_leave_call(mptl_cuda_device *d, int error, const char *call) {
  const char *fails = getenv("MPTL_CUDA_HOST_FAILS");
  if (fails != NULL && strstr(call, fails) != NULL) error = 719;
  mptl_cuda_leave(d);
  return error == 0 ? MPTL_OK
                    : mptl_fail(MPTL_EBACKEND, "CUDA, starting %.120s: error %d", call, error);
}

mptl_status mptl_cuda_settle(mptl_cuda_device *d, const char *what) {
  (void)d, (void)what; /* a launch returns after its work */
  return MPTL_OK;
}

void *mptl_cuda_address(const mptl_cuda_device *d, const void *p) {
  const struct mptl_cuda_runtime *r = d->runtime;
  if (p != NULL && ((const char *)p < r->base || (const char *)p >= r->base + r->used))
    stop("an address that is not the device's is handed to it", p);
  return (void *)p;
}

/* ---- The device ---- */

/* MPTL_CUDA_HOST_DEVICES in the environment: the number of devices; 1 if it is not set. */
mptl_status mptl_cuda_runtime_count(int *devices) {
  const char *text = getenv("MPTL_CUDA_HOST_DEVICES");
  *devices = text != NULL ? atoi(text) : 1;
  return MPTL_OK;
}

mptl_status mptl_cuda_runtime_describe(int number, char *text, size_t size) {
  (void)number;
  snprintf(text, size, "no GPU: the kernels on the host, for tests");
  return MPTL_OK;
}

/* MPTL_CUDA_HOST_CAPABILITY in the environment: the device's compute capability; 90 if it is not
 * set. */
mptl_status mptl_cuda_runtime_open(mptl_cuda_device *device, int number) {
  const char *text = getenv("MPTL_CUDA_HOST_CAPABILITY");
  device->number = number;
  device->capability = text != NULL ? atoi(text) : 90;
  device->multiprocessors = 2; /* the same as for the kernels (shim.h) */
  void *base =
      mmap(NULL, RANGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED)
    return mptl_fail(MPTL_ENOMEM, "no range of addresses of %zu bytes", RANGE_BYTES);
  device->runtime = calloc(1, sizeof *device->runtime);
  if (device->runtime == NULL) {
    munmap(base, RANGE_BYTES);
    return mptl_fail(MPTL_ENOMEM, "no memory");
  }
  device->runtime->base = base;
  pthread_mutex_init(&device->runtime->lock, NULL);
  return MPTL_OK;
}

void mptl_cuda_runtime_close(mptl_cuda_device *device) {
  struct mptl_cuda_runtime *r = device->runtime;
  if (r == NULL) return;
  if (r->blocks != NULL) stop("closed, but memory is still allocated", r->base + r->blocks->offset);
  munmap(r->base, RANGE_BYTES);
  pthread_mutex_destroy(&r->lock);
  free(r);
}

/* ---- Memory: first fit; the beginning of each block is filled with NaNs ---- */

enum { FILLED = 1 << 20 }; /* bytes; more would take time, for pages that may never be used */

/* Finds an offset for a new block, and its place in the list. */
static size_t place(struct mptl_cuda_runtime *r, size_t bytes, block ***after) {
  size_t offset = 0;
  *after = &r->blocks;
  for (block *b = r->blocks; b != NULL && b->offset < offset + bytes; b = b->next) {
    offset = b->offset + b->bytes;
    *after = &b->next;
  }
  return offset;
}

void *mptl_cuda_alloc(mptl_device *device, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  struct mptl_cuda_runtime *r = d->runtime;
  if (bytes > RANGE_BYTES / 2) return NULL;
  block *b = malloc(sizeof *b), **after;
  if (b == NULL) return NULL;
  b->bytes = (bytes + (bytes == 0) + ALIGN - 1) / ALIGN * ALIGN;
  pthread_mutex_lock(&r->lock);
  b->offset = place(r, b->bytes, &after);
  bool fits = b->offset + b->bytes <= RANGE_BYTES;
  if (fits) {
    b->next = *after;
    *after = b;
    if (b->offset + b->bytes > r->used) r->used = b->offset + b->bytes;
  }
  pthread_mutex_unlock(&r->lock);
  if (!fits) {
    free(b);
    return NULL;
  }
  char *p = r->base + b->offset;
  mptl_cuda_enter(d);
  memset(p, 0xff, b->bytes < FILLED ? b->bytes : FILLED);
  mptl_cuda_leave(d);
  mptl_memory_count((ptrdiff_t)b->bytes);
  return p;
}

void mptl_cuda_free(mptl_device *device, void *p) {
  struct mptl_cuda_runtime *r = mptl_cuda(device)->runtime;
  if (p == NULL) return;
  pthread_mutex_lock(&r->lock);
  block **at = &r->blocks;
  while (*at != NULL && r->base + (*at)->offset != p) at = &(*at)->next;
  block *b = *at;
  if (b == NULL) stop("freed, but not allocated", p);
  *at = b->next;
  pthread_mutex_unlock(&r->lock);
  mptl_memory_count(-(ptrdiff_t)b->bytes);
  free(b);
}

mptl_status mptl_cuda_upload(mptl_device *device, void *to, const void *host, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_enter(d);
  memcpy(mptl_cuda_address(d, to), host, bytes);
  mptl_cuda_leave(d);
  return MPTL_OK;
}

static uint64_t sum_of(const uint8_t *p, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes; i++) sum = sum * 1099511628211u + p[i];
  return sum;
}

static void look_at_lent(mptl_cuda_device *d) {
  loan *l = &d->runtime->lent;
  if (l->host != NULL && sum_of(l->host, l->bytes) != l->sum)
    stop("lent memory was changed before a wait", l->host);
  l->host = NULL;
}

mptl_status mptl_cuda_lend(mptl_device *device, void *to, const void *host, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  look_at_lent(d);
  d->runtime->lent = (loan){.host = host, .bytes = bytes, .sum = sum_of(host, bytes)};
  return mptl_cuda_upload(device, to, host, bytes);
}

mptl_status mptl_cuda_download(mptl_device *device, void *host, const void *from, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  look_at_lent(d);
  mptl_cuda_enter(d);
  memcpy(host, mptl_cuda_address(d, from), bytes);
  mptl_cuda_leave(d);
  return MPTL_OK;
}

mptl_status mptl_cuda_zero(mptl_device *device, void *p, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  mptl_cuda_enter(d);
  memset(mptl_cuda_address(d, p), 0, bytes);
  mptl_cuda_leave(d);
  return MPTL_OK;
}

mptl_status mptl_cuda_copy(mptl_cuda_device *d, void *to, const void *from, size_t bytes) {
  mptl_cuda_enter(d);
  memcpy(mptl_cuda_address(d, to), mptl_cuda_address(d, from), bytes);
  mptl_cuda_leave(d);
  return MPTL_OK;
}

mptl_status mptl_cuda_synchronize(mptl_device *device) {
  look_at_lent(mptl_cuda(device));
  return MPTL_OK;
}

void *mptl_cuda_host_alloc(mptl_device *device, size_t bytes) {
  (void)device;
  return mptl_device_host_alloc(NULL, bytes);
}

void mptl_cuda_host_free(mptl_device *device, void *p) {
  (void)device;
  mptl_device_host_free(NULL, p);
}
