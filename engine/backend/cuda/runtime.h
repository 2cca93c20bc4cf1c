/* A GPU as the backend sees it: memory, the stream that its work goes to, launches. runtime.c has it of the CUDA runtime; host/runtime.c for
 * the kernels compiled for the host, where device memory is the host's, closed to it but for launches and copies.
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
  struct mptl_cuda_runtime *runtime;   /* runtime.c's own */
  struct mptl_cuda_products *products; /* products.h; NULL before the first is asked for */
  mptl_round_stats *found;             /* ranges.c's; NULL before its first use */
} mptl_cuda_device;

static inline mptl_cuda_device *mptl_cuda(mptl_device *device) { return (mptl_cuda_device *)device; }

mptl_status mptl_cuda_runtime_count(int *devices);
mptl_status mptl_cuda_runtime_describe(int number, char *text, size_t size);

/* Opens device `number` with a stream of its own: fills in all but base, products and found. */
mptl_status mptl_cuda_runtime_open(mptl_cuda_device *device, int number);
void mptl_cuda_runtime_close(mptl_cuda_device *device); /* also after a failed open */

/* mptl_backend's memory. */
void *mptl_cuda_alloc(mptl_device *device, size_t bytes);
void mptl_cuda_free(mptl_device *device, void *p);
mptl_status mptl_cuda_upload(mptl_device *device, void *to, const void *host, size_t bytes);
mptl_status mptl_cuda_download(mptl_device *device, void *host, const void *from, size_t bytes);
mptl_status mptl_cuda_zero(mptl_device *device, void *p, size_t bytes);
mptl_status mptl_cuda_synchronize(mptl_device *device);
void *mptl_cuda_host_alloc(mptl_device *device, size_t bytes);
void mptl_cuda_host_free(mptl_device *device, void *p);
mptl_status mptl_cuda_lend(mptl_device *device, void *to, const void *host, size_t bytes);

/* Copies within the device's memory, in the stream. */
mptl_status mptl_cuda_copy(mptl_cuda_device *device, void *to, const void *from, size_t bytes);

/* Brackets around what launches work. leave_call takes what a launcher returned, and its call as text, for the error. With
 * MPTL_CUDA_BLOCKING=1 in the environment leave_call waits, so that an error in a kernel is reported by its own launch. */
void mptl_cuda_enter(mptl_cuda_device *device);
mptl_status mptl_cuda_leave_call(mptl_cuda_device *device, int error, const char *call);

/* Runs a launcher. */
#define MPTL_CUDA_LAUNCH(device, call) (mptl_cuda_enter(device), mptl_cuda_leave_call(device, call, #call))

/* With MPTL_CUDA_BLOCKING=1: waits for what was given to the stream; what is the text of errors. Else does nothing. */
mptl_status mptl_cuda_settle(mptl_cuda_device *device, const char *what);

/* An address that goes to the device. On the host: ends the process if it is not in its memory; NULL is allowed. */
#ifdef MPTL_CUDA_HOST
void *mptl_cuda_address(const mptl_cuda_device *device, const void *p);
void mptl_cuda_leave(mptl_cuda_device *device); /* the host's own end of the bracket, where no launcher was called */
#else
static inline void *mptl_cuda_address(const mptl_cuda_device *device, const void *p) {
  (void)device;
  return (void *)p;
}
#endif

#endif
