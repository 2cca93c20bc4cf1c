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

/* Memory of the host from which what a program is given goes to the device without a copy in between: for batches. 64-byte aligned,
 * uninitialised; NULL when it cannot be had. */
MPTL_API void *mptl_device_host_alloc(const mptl_device *device, size_t bytes);
MPTL_API void mptl_device_host_free(const mptl_device *device, void *p); /* NULL is allowed */

/* What a device reaches at most, as it is measured: what the parts of a step are held against. */
enum { MPTL_FLOOR_TYPES = 4 };
typedef struct mptl_floor {
  double copy_gb_per_s; /* bytes read plus bytes written */
  int types;
  struct {
    const char *name; /* "bf16": as mptl_compute_name, where no product stands for several */
    double gflop_per_s;
  } multiply[MPTL_FLOOR_TYPES]; /* a large convolution, in each type that there are units for */
} mptl_floor;

/* seconds: how long each of the figures is looked for; the best counts. */
MPTL_API mptl_status mptl_device_measure(mptl_floor *floor, const mptl_device *device, double seconds);

/* GPUs that can be opened; MPTL_EUNSUPPORTED with what is missing where there is none. */
MPTL_API mptl_status mptl_cuda_count(int *count);

/* A GPU in words: "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.1 GiB". */
MPTL_API mptl_status mptl_cuda_describe(int number, char *text, size_t size);

/* The libraries that the plug-in uses, with their versions; NULL where there is no plug-in. */
MPTL_API const char *mptl_cuda_libraries(void);

#endif
