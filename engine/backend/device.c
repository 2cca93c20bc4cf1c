/* Devices by name. */
#include "mptl/device.h"

#include <string.h>

#include "backend/backend.h"

mptl_status mptl_device_open(const mptl_device **device, const char *name) {
  if (strcmp(name, "cpu") != 0) return mptl_fail(MPTL_EINVAL, "device %.60s: accepted are cpu", name);
  *device = &mptl_backend_cpu;
  return MPTL_OK;
}

const char *mptl_device_name(const mptl_device *device) { return device->name; }
