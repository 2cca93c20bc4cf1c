/* What the backend asks of the machine: devices, memory, the stream that all work goes to. runtime.c answers for GPUs; host/runtime.c for the
 * kernels compiled for the host, where device memory is the host's, closed to it but for launches and copies.
 */
#ifndef MPTL_BACKEND_CUDA_RUNTIME_H
#define MPTL_BACKEND_CUDA_RUNTIME_H

#include "core/memory.h"
#include "kernels/cuda/kernels.h"
#include "mptl/status.h"

mptl_status mptl_cuda_runtime_count(int *devices);
mptl_status mptl_cuda_runtime_describe(int device, char *text, size_t size);

/* Opens a device for the process, with its stream; the same one again is no error. */
mptl_status mptl_cuda_runtime_open(int device);

/* Of the open device. */
int mptl_cuda_runtime_device(void);
mptl_cuda_stream mptl_cuda_runtime_stream(void);
int mptl_cuda_runtime_capability(void); /* 10 * major + minor */
int mptl_cuda_runtime_multiprocessors(void);
extern const mptl_memory mptl_cuda_memory;

/* Copies within the device's memory, in the stream. */
mptl_status mptl_cuda_runtime_copy(void *to, const void *from, size_t bytes);

/* Brackets around what launches work. leave_call takes what a launcher returned, and its call as text, for the error. With MPTL_CUDA_BLOCKING=1 in the environment leave_call waits, so that what goes wrong in a kernel is told by its own launch. */
void mptl_cuda_enter(void);
mptl_status mptl_cuda_leave_call(int error, const char *call);

/* Runs a launcher. */
#define MPTL_CUDA_LAUNCH(call) (mptl_cuda_enter(), mptl_cuda_leave_call(call, #call))

/* With MPTL_CUDA_BLOCKING=1: waits for what was given to the stream; what is the text of errors. Else does nothing. */
mptl_status mptl_cuda_runtime_settle(const char *what);

/* An address that goes to the device. On the host: ends the process if it is not in its memory; NULL is allowed. */
#ifdef MPTL_CUDA_HOST
void *mptl_cuda_address(const void *p);
void mptl_cuda_leave(void); /* the host's own end of the bracket, where no launcher was called */
#else
static inline void *mptl_cuda_address(const void *p) { return (void *)p; }
#endif

#endif
