/* Devices of this machine, and devices that are only described. */
#include "backend/cuda/dnn_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/dnn_descriptor.h"

static void init_turn(mptl_dnn_device *device) {
  pthread_mutex_init(&device->own_turn, NULL);
  device->turn = &device->own_turn;
}

mptl_status mptl_dnn_device_open(mptl_dnn_device *device, int number, cudaStream_t stream) {
  char name[32];
  init_turn(device);
  snprintf(name, sizeof name, "device cuda:%d", number);
  MPTL_TRY(mptl_cuda_use_device(number, &device->traits));
  MPTL_TRY(mptl_dnn_status(cudnnCreate(&device->handle), name));
  MPTL_TRY(mptl_dnn_status(cudnnSetStream(device->handle, stream), name));
  device->number = number;
  device->stream = stream;
  return MPTL_OK;
}

/* A number in cuDNN's JSON; 0 if it is missing. */
static size_t number_in(const char *properties, const char *key) {
  const char *at = strstr(properties, key);
  return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}

/* In cuDNN's JSON a compute capability is multiplied by 100: 9.0 is 900. */
mptl_status mptl_dnn_device_describe(mptl_dnn_device *device, const char *properties) {
  init_turn(device);
  size_t version = number_in(properties, "\"deviceVer\":");
  if (version < 100)
    return mptl_fail(MPTL_EINVAL, "device properties: deviceVer is %zu, must be 800 or such",
                     version);
  device->traits =
      (mptl_cuda_traits){(int)version / 10, number_in(properties, "\"totalGlobalMem\":")};
#if CUDNN_VERSION >= 90800
  const char *name = "device properties";
  MPTL_TRY(mptl_dnn_status(
      cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device->properties),
      name));
  MPTL_TRY(mptl_dnn_set(device->properties, name, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                        CUDNN_TYPE_CHAR, (int64_t)strlen(properties) + 1, properties));
  MPTL_TRY(mptl_dnn_finalize(device->properties, name));
  device->description = strdup(properties);
  return device->description != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "%s: no memory", name);
#else
  return mptl_fail(MPTL_EUNSUPPORTED, "device properties: cuDNN is %s, 9.8 or newer is needed",
                   mptl_cuda_version_of(cudnnGetVersion()).text);
#endif
}

mptl_status mptl_dnn_device_open_again(mptl_dnn_device *device, const mptl_dnn_device *other) {
  mptl_status status = other->handle != NULL
                           ? mptl_dnn_device_open(device, other->number, other->stream)
                           : mptl_dnn_device_describe(device, other->description);
  device->turn = other->turn;
  return status;
}

void mptl_dnn_device_close(mptl_dnn_device *device) {
  free(device->description);
  if (device->properties != NULL) cudnnBackendDestroyDescriptor(device->properties);
  if (device->handle != NULL) cudnnDestroy(device->handle);
  if (device->turn != NULL) pthread_mutex_destroy(&device->own_turn);
}

static char *text_of_gpu(int number) {
  struct cudaDeviceProp p;
  int driver = 0;
  char *text;
  if (cudaGetDeviceProperties(&p, number) != cudaSuccess ||
      cudaDriverGetVersion(&driver) != cudaSuccess) {
    cudaGetLastError();
    return NULL;
  }
  int length =
      asprintf(&text, "%s, compute capability %d.%d, %d multiprocessors, a driver of CUDA %d.%d",
               p.name, p.major, p.minor, p.multiProcessorCount, driver / 1000, driver / 10 % 100);
  return length < 0 ? NULL : text;
}

/* There may be a driver, a stand-in for it, or no driver: then nothing is compiled. */
static char *text_of_described(const char *description) {
  int driver = 0;
  char *text;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) cudaGetLastError();
  int length =
      asprintf(&text, "%s, a driver of CUDA %d.%d", description, driver / 1000, driver / 10 % 100);
  return length < 0 ? NULL : text;
}

char *mptl_dnn_device_text(const mptl_dnn_device *device) {
  return device->handle != NULL ? text_of_gpu(device->number)
                                : text_of_described(device->description);
}
