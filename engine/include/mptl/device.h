/* Devices: where a model's tensors are and its programs run. The CPU is always there; NVIDIA GPUs are where the plug-in for them was built
 * and finds a driver.
 */
#ifndef MPTL_DEVICE_H
#define MPTL_DEVICE_H

#include <stddef.h>

#include "mptl/status.h"

/* An opened device: a backend's functions and what they need (a stream, library handles, threads). Devices share nothing, also two of one
 * name: each can be used by a thread of its own, at the same time. One device is used by one thread at a time. */
typedef struct mptl_device mptl_device;

/* Opens the device of that name: "cpu", "cuda:N", "cuda" (the first), or "auto": cuda where that can be used, else cpu.
 * threads: how many compute, of the CPU; 0: mptl_default_threads (machine.h). Nothing but the device's own work runs on as many.
 * MPTL_EINVAL: another name, or a number beyond the last. MPTL_EUNSUPPORTED: there is no plug-in, no driver, no GPU. */
MPTL_API mptl_status mptl_device_open(mptl_device **device, const char *name, int threads);

/* A device has users, the first is who opened it; the last one to close it releases it. Models, workspaces, tensors and loaders are users, so
 * whoever opened it may close it before them. retain adds one and returns the device. NULL is allowed in both. */
MPTL_API mptl_device *mptl_device_retain(mptl_device *device);
MPTL_API void mptl_device_close(mptl_device *device);

/* The name that opens it: "cpu", "cuda:0". */
MPTL_API const char *mptl_device_name(const mptl_device *device);

/* Threads that compute. */
MPTL_API int mptl_device_threads(const mptl_device *device);

/* Pinned host memory: batches upload from it without a staging copy. 64-byte aligned, not counted, uninitialised; NULL when there is none.
 * device NULL: for the CPU. */
MPTL_API void *mptl_device_host_alloc(mptl_device *device, size_t bytes);
MPTL_API void mptl_device_host_free(mptl_device *device, void *p); /* NULL is allowed */

/* A device's measured peak rates. Profiles compare the parts of a step with them. */
enum { MPTL_PEAK_TYPES = 4 };
typedef struct mptl_peaks {
  double copy_gb_per_s; /* bytes read plus bytes written */
  int types;
  struct {
    const char *name; /* "bf16": as mptl_compute_name */
    double gflop_per_s;
  } multiply[MPTL_PEAK_TYPES]; /* of a large convolution, in each type that the device has units for */
} mptl_peaks;

/* Measures each rate for so many seconds, and takes the best. */
MPTL_API mptl_status mptl_device_find_peaks(mptl_peaks *peaks, mptl_device *device, double seconds);

/* GPUs that can be opened; MPTL_EUNSUPPORTED with what is missing where there is none. */
MPTL_API mptl_status mptl_cuda_count(int *count);

/* A GPU in words: "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.1 GiB". */
MPTL_API mptl_status mptl_cuda_describe(int number, char *text, size_t size);

/* The libraries that the plug-in uses, with their versions; NULL where there is no plug-in. */
MPTL_API const char *mptl_cuda_libraries(void);

#endif
