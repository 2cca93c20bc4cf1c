/* Devices: where a model's tensors are and its programs run. The CPU is always there. */
#ifndef MPTL_DEVICE_H
#define MPTL_DEVICE_H

#include "mptl/status.h"

typedef struct mptl_backend mptl_device; /* opened once, for the life of the process */

/* The device of that name: "cpu". MPTL_EINVAL for another name. */
MPTL_API mptl_status mptl_device_open(const mptl_device **device, const char *name);

/* The name that opens it. */
MPTL_API const char *mptl_device_name(const mptl_device *device);

#endif
