/* A GPU for the backend: memory, a CUDA stream, launches. runtime.c implements it with the CUDA
 * runtime. host/runtime.c implements it for kernels compiled for the host: there, device memory is
 * host memory that is accessible only during launches and copies.
 */
#ifndef MPTL_BACKEND_CUDA_RUNTIME_H
#define MPTL_BACKEND_CUDA_RUNTIME_H

#include "backend/backend.h"
#include "kernels/cuda/kernels.h"
#include "mptl/status.h"

/* An opened device. */
typedef struct mptl_cuda_device {
  mptl_device base; /* first */
  int number;       /* N of "cuda:N" */
  int capability;   /* 10 * major + minor */
  int multiprocessors;
  mptl_cuda_stream stream;
  struct mptl_cuda_runtime *runtime;   /* private to runtime.c */
  struct mptl_cuda_products *products; /* private to products.c; NULL before the first product */
  mptl_round_stats *found;             /* private to ranges.c; NULL before its first use */
} mptl_cuda_device;

static inline mptl_cuda_device *mptl_cuda(mptl_device *device) {
  return (mptl_cuda_device *)device;
}

mptl_status mptl_cuda_runtime_count(int *devices);
mptl_status mptl_cuda_runtime_describe(int number, char *text, size_t size);

/* Opens device `number` and makes a stream for it. Sets all fields except base, products and
 * found. */
mptl_status mptl_cuda_runtime_open(mptl_cuda_device *device, int number);
void mptl_cuda_runtime_close(mptl_cuda_device *device); /* also after a failed open */

/* mptl_backend's functions of memory. */
void *mptl_cuda_alloc(mptl_device *device, size_t bytes);
void mptl_cuda_free(mptl_device *device, void *p);
mptl_status mptl_cuda_upload(mptl_device *device, void *to, const void *host, size_t bytes);
mptl_status mptl_cuda_download(mptl_device *device, void *host, const void *from, size_t bytes);
mptl_status mptl_cuda_zero(mptl_device *device, void *p, size_t bytes);
mptl_status mptl_cuda_synchronize(mptl_device *device);
void *mptl_cuda_host_alloc(mptl_device *device, size_t bytes);
void mptl_cuda_host_free(mptl_device *device, void *p);
mptl_status mptl_cuda_lend(mptl_device *device, void *to, const void *host, size_t bytes);

/* Copies within device memory, in the stream. */
mptl_status mptl_cuda_copy(mptl_cuda_device *device, void *to, const void *from, size_t bytes);

/* Called before and after work is launched. error: what the launch returned; call: its text, for
 * the message. With MPTL_CUDA_BLOCKING=1 in the environment, leave_call waits, so that an error in
 * a kernel is reported for its launch. */
void mptl_cuda_enter(mptl_cuda_device *device);
mptl_status mptl_cuda_leave_call(mptl_cuda_device *device, int error, const char *call);

/* Evaluates a call that launches kernels; the value is an mptl_status. */
#define MPTL_CUDA_LAUNCH(device, call) \
  (mptl_cuda_enter(device), mptl_cuda_leave_call(device, call, #call))

/* With MPTL_CUDA_BLOCKING=1: waits for the work in the stream. what: names the work in messages.
 * Otherwise does nothing. */
mptl_status mptl_cuda_settle(mptl_cuda_device *device, const char *what);

/* Returns an address that goes to the device. In the host-built plug-in: ends the process if the
 * address is not in device memory. NULL is allowed. */
#ifdef MPTL_CUDA_HOST
void *mptl_cuda_address(const mptl_cuda_device *device, const void *p);
void mptl_cuda_leave(mptl_cuda_device *device); /* like leave_call, if nothing was launched */
#else
static inline void *mptl_cuda_address(const mptl_cuda_device *device, const void *p) {
  (void)device;
  return (void *)p;
}
#endif

#endif
