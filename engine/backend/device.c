/* Opens devices by name, and has the functions that are the same for all devices. */
#include "mptl/device.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "backend/plugin.h"
#include "mptl/machine.h"

mptl_status mptl_cuda_count(int *count) {
  const mptl_plugin *plugin;
  *count = 0;
  MPTL_TRY(mptl_plugin_cuda(&plugin));
  return plugin->count(count);
}

mptl_status mptl_cuda_describe(int number, char *text, size_t size) {
  const mptl_plugin *plugin;
  MPTL_TRY(mptl_plugin_cuda(&plugin));
  return plugin->describe(number, text, size);
}

const char *mptl_cuda_libraries(void) {
  const mptl_plugin *plugin;
  return mptl_plugin_cuda(&plugin) == MPTL_OK ? plugin->libraries() : NULL;
}

/* The N of "cuda:N"; 0 for "cuda"; -1 for any other name. */
static int cuda_number(const char *name) {
  if (strcmp(name, "cuda") == 0) return 0;
  size_t digits = strncmp(name, "cuda:", 5) == 0 ? strspn(name + 5, "0123456789") : 0;
  return digits > 0 && digits < 6 && name[5 + digits] == '\0' ? atoi(name + 5) : -1;
}

static mptl_status open_cuda(mptl_device **device, const char *name, int number) {
  const mptl_plugin *plugin;
  int count = 0;
  mptl_status status = mptl_plugin_cuda(&plugin);
  if (status == MPTL_OK) status = plugin->count(&count);
  if (status == MPTL_OK && number >= count)
    return mptl_fail(MPTL_EINVAL, "device %s: there %s here, accepted are cuda:0 to cuda:%d", name,
                     count == 1 ? "is 1 GPU" : "are GPUs", count - 1);
  if (status == MPTL_OK) status = plugin->open(device, number);
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "device %s", name);
}

/* Whether a GPU may be there. Opening the plug-in loads large libraries, so `auto` looks for the
 * driver first. */
static bool has_driver(void) {
  if (getenv("MPTL_CUDA_PLUGIN") != NULL) return true; /* its devices may need no driver */
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver != NULL) dlclose(driver);
  return driver != NULL;
}

mptl_status mptl_device_open(mptl_device **device, const char *name, int threads) {
  bool automatic = strcmp(name, "auto") == 0;
  *device = NULL;
  if (threads < 0 || threads > MPTL_MAX_THREADS)
    return mptl_fail(MPTL_EINVAL, "device %.60s: %d threads, accepted are 1 to %d", name, threads,
                     MPTL_MAX_THREADS);
  if (strcmp(name, "cpu") == 0 || (automatic && !has_driver()))
    return mptl_cpu_open(device, threads);
  int number = automatic ? 0 : cuda_number(name);
  if (number < 0)
    return mptl_fail(MPTL_EINVAL, "device %.60s: accepted are auto, cpu, cuda, cuda:N", name);
  mptl_status status = open_cuda(device, name, number);
  return status == MPTL_OK || !automatic ? status : mptl_cpu_open(device, threads);
}

mptl_device *mptl_device_retain(mptl_device *device) {
  if (device != NULL) atomic_fetch_add(&device->users, 1);
  return device;
}

void mptl_device_close(mptl_device *device) {
  if (device != NULL && atomic_fetch_sub(&device->users, 1) == 1) device->backend->close(device);
}

void *mptl_device_host_alloc(mptl_device *device, size_t bytes) {
  return device != NULL ? device->backend->host_alloc(device, bytes)
                        : aligned_alloc(64, mptl_aligned(bytes));
}

void mptl_device_host_free(mptl_device *device, void *p) {
  if (device != NULL)
    device->backend->host_free(device, p);
  else
    free(p);
}

mptl_status mptl_device_find_peaks(mptl_peaks *peaks, mptl_device *device, double seconds) {
  memset(peaks, 0, sizeof *peaks);
  return device->backend->find_peaks(device, peaks, seconds);
}

const char *mptl_device_name(const mptl_device *device) { return device->name; }
int mptl_device_threads(const mptl_device *device) { return device->threads; }
