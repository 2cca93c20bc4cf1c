/* cuDNN on a device, or for one that is described. */
#include "backend/cuda/dnn.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/device.h"
#include "backend/cuda/dnn_store.h"

static char version[32];

static void name_version(void) {
  size_t v = cudnnGetVersion();
  snprintf(version, sizeof version, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
}

const char *mptl_cuda_dnn_version(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, name_version);
  return version;
}

int mptl_cuda_dnn_capability(const mptl_cuda_dnn *dnn) { return dnn->traits.capability; }

/* The files of the device's plans. */
static mptl_dnn_store *open_store(int device) {
  struct cudaDeviceProp p;
  int driver = 0;
  char text[sizeof p.name + 128];
  if (cudaGetDeviceProperties(&p, device) != cudaSuccess || cudaDriverGetVersion(&driver) != cudaSuccess) {
    cudaGetLastError();
    return NULL;
  }
  snprintf(text, sizeof text, "%s, compute capability %d.%d, %d multiprocessors, a driver of CUDA %d.%d", p.name, p.major,
           p.minor, p.multiProcessorCount, driver / 1000, driver / 10 % 100);
  return mptl_dnn_store_open(text);
}

static mptl_status open_device(mptl_cuda_dnn *dnn, int device, cudaStream_t stream) {
  char name[32];
  snprintf(name, sizeof name, "device cuda:%d", device);
  MPTL_TRY(mptl_cuda_use_device(device, &dnn->traits));
  MPTL_TRY(mptl_dnn_status(cudnnCreate(&dnn->handle), name));
  MPTL_TRY(mptl_dnn_status(cudnnSetStream(dnn->handle, stream), name));
  dnn->device = device;
  dnn->stream = stream;
  dnn->judge = mptl_dnn_check_plan;
  dnn->store = open_store(device);
  return MPTL_OK;
}

#if CUDNN_VERSION >= 90800
/* Those of one that is described. There is a driver, or a stand-in for it, or none, and then nothing is compiled. */
static mptl_dnn_store *open_described_store(const char *properties) {
  int driver = 0;
  char *text;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) cudaGetLastError();
  if (asprintf(&text, "%s, a driver of CUDA %d.%d", properties, driver / 1000, driver / 10 % 100) < 0) return NULL;
  mptl_dnn_store *store = mptl_dnn_store_open(text);
  free(text);
  return store;
}
#endif

/* A number of cuDNN's JSON; 0 if it is not there. */
static size_t number_in(const char *properties, const char *key) {
  const char *at = strstr(properties, key);
  return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}

/* cuDNN's compute capability is the device's times 10, 900. */
static mptl_status describe_device(mptl_cuda_dnn *dnn, const char *properties) {
  size_t version_10 = number_in(properties, "\"deviceVer\":");
  if (version_10 < 100) return mptl_fail(MPTL_EINVAL, "device properties: deviceVer is %zu, must be 800 or such", version_10);
  dnn->traits = (mptl_cuda_traits){(int)version_10 / 10, number_in(properties, "\"totalGlobalMem\":")};
#if CUDNN_VERSION >= 90800
  const char *name = "device properties";
  MPTL_TRY(mptl_dnn_status(cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &dnn->properties), name));
  MPTL_TRY(mptl_dnn_set(dnn->properties, name, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                        (int64_t)strlen(properties) + 1, properties));
  MPTL_TRY(mptl_dnn_finalize(dnn->properties, name));
  dnn->store = open_described_store(properties);
  dnn->description = strdup(properties);
  return dnn->description != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "%s: no memory", name);
#else
  return mptl_fail(MPTL_EUNSUPPORTED, "device properties: cuDNN is %s, 9.8 or newer is needed", mptl_cuda_dnn_version());
#endif
}

mptl_status mptl_cuda_dnn_create(mptl_cuda_dnn **dnn, int device, cudaStream_t stream) {
  *dnn = NULL;
  mptl_cuda_dnn *d = calloc(1, sizeof *d);
  if (d == NULL) return mptl_fail(MPTL_ENOMEM, "device cuda:%d: no memory", device);
  mptl_status status = open_device(d, device, stream);
  if (status == MPTL_OK)
    *dnn = d;
  else
    mptl_cuda_dnn_destroy(d);
  return status;
}

mptl_status mptl_cuda_dnn_create_for(mptl_cuda_dnn **dnn, const char *properties) {
  *dnn = NULL;
  mptl_cuda_dnn *d = calloc(1, sizeof *d);
  if (d == NULL) return mptl_fail(MPTL_ENOMEM, "device properties: no memory");
  mptl_status status = describe_device(d, properties);
  if (status == MPTL_OK)
    *dnn = d;
  else
    mptl_cuda_dnn_destroy(d);
  return status;
}

mptl_status mptl_dnn_create_like(mptl_cuda_dnn **another, const mptl_cuda_dnn *dnn) {
  MPTL_TRY(dnn->handle != NULL ? mptl_cuda_dnn_create(another, dnn->device, dnn->stream)
                               : mptl_cuda_dnn_create_for(another, dnn->description));
  (*another)->judge = dnn->judge;
  return MPTL_OK;
}

void mptl_cuda_dnn_destroy(mptl_cuda_dnn *dnn) {
  if (dnn == NULL) return;
  mptl_dnn_destroy_plans(dnn->plans);
  mptl_dnn_store_close(dnn->store);
  free(dnn->description);
  if (dnn->properties != NULL) cudnnBackendDestroyDescriptor(dnn->properties);
  if (dnn->handle != NULL) cudnnDestroy(dnn->handle);
  free(dnn);
}
