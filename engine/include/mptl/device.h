/* Devices, which hold models and run programs: the CPU, which is always available, and NVIDIA GPUs,
 * if the plug-in for them was built and finds a driver. */
#ifndef MPTL_DEVICE_H
#define MPTL_DEVICE_H

#include <stddef.h>

#include "mptl/status.h"

/* An opened device: the functions of a backend and what they need (a CUDA stream, library handles,
 * threads). Devices share nothing, not even two with the same name: different threads may use
 * different devices at the same time. One thread at a time uses a device. */
typedef struct mptl_device mptl_device;

/* Opens a device: "cpu", "cuda:N", "cuda" (the first GPU), or "auto": cuda if it can be used, else
 * cpu. threads: how many CPU threads compute; 0: mptl_default_threads (machine.h). MPTL_EINVAL:
 * another name, or a number beyond the last GPU; MPTL_EUNSUPPORTED: there is no plug-in, driver or
 * GPU; MPTL_ENOMEM. */
MPTL_API mptl_status mptl_device_open(mptl_device **device, const char *name, int threads);

/* A device counts its users and is released when the last one closes it. The first user is the
 * caller of mptl_device_open. Models, workspaces, tensors and loaders are users, so the caller may
 * close the device before them. retain adds a user and returns the device. Both functions accept
 * NULL. */
MPTL_API mptl_device *mptl_device_retain(mptl_device *device);
MPTL_API void mptl_device_close(mptl_device *device);

/* The name that opens the device: "cpu", "cuda:0". */
MPTL_API const char *mptl_device_name(const mptl_device *device);

/* The number of CPU threads that compute. */
MPTL_API int mptl_device_threads(const mptl_device *device);

/* Pinned host memory, from which batches upload without a staging copy: 64-byte aligned, not
 * counted, uninitialised; NULL if there is none. device NULL: for the CPU. The caller frees it with
 * mptl_device_host_free, for the same device. */
MPTL_API void *mptl_device_host_alloc(mptl_device *device, size_t bytes);
MPTL_API void mptl_device_host_free(mptl_device *device, void *p); /* NULL is allowed */

/* The peak rates of a device, found by timing. Profiles compare the parts of a step with them. */
enum { MPTL_PEAK_TYPES = 4 };
typedef struct mptl_peaks {
  double copy_gb_per_s; /* copying: bytes read plus bytes written */
  int types;
  struct {
    const char *name; /* "bf16": as from mptl_compute_name */
    double gflop_per_s;
    /* of a large convolution, in each type that the device has units for */
  } multiply[MPTL_PEAK_TYPES];
} mptl_peaks;

/* Finds each peak rate: times runs for `seconds` seconds and takes the best. */
MPTL_API mptl_status mptl_device_find_peaks(mptl_peaks *peaks, mptl_device *device, double seconds);

/* The number of GPUs that can be opened. MPTL_EUNSUPPORTED, with a message that says what is
 * missing, if there is none. */
MPTL_API mptl_status mptl_cuda_count(int *count);

/* Writes a GPU in words to text: "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.1 GiB". */
MPTL_API mptl_status mptl_cuda_describe(int number, char *text, size_t size);

/* The libraries that the plug-in uses, with their versions; NULL if there is no plug-in. */
MPTL_API const char *mptl_cuda_libraries(void);

#endif
