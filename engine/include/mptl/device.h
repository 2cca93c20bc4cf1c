/* Devices: where a model's tensors are and its programs run. The CPU is always there; NVIDIA GPUs are where the plug-in for them was built
 * and finds a driver.
 */
#ifndef MPTL_DEVICE_H
#define MPTL_DEVICE_H

#include <stddef.h>

#include "mptl/status.h"

typedef struct mptl_backend mptl_device; /* opened once, for the life of the process */

/* The device of that name: "cpu", "cuda:N", "cuda" (the first), or "auto": cuda where that can be used, else cpu. One GPU a process.
 * MPTL_EINVAL: another name, or a number beyond the last. MPTL_EUNSUPPORTED: there is no plug-in, no driver, no GPU. */
MPTL_API mptl_status mptl_device_open(const mptl_device **device, const char *name);

/* The name that opens it: "cpu", "cuda:0". */
MPTL_API const char *mptl_device_name(const mptl_device *device);

/* GPUs that can be opened; MPTL_EUNSUPPORTED with what is missing where there is none. */
MPTL_API mptl_status mptl_cuda_count(int *count);

/* A GPU in words: "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.1 GiB". */
MPTL_API mptl_status mptl_cuda_describe(int number, char *text, size_t size);

/* The libraries that the plug-in uses, with their versions; NULL where there is no plug-in. */
MPTL_API const char *mptl_cuda_libraries(void);

#endif
