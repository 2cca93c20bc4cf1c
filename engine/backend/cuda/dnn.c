/* cuDNN on a device, with a cache of plans, their files and a judge. */
#include "backend/cuda/dnn.h"

#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/dnn_cache.h"
#include "backend/cuda/dnn_compiler.h"
#include "backend/cuda/inspect.h"

struct mptl_cuda_dnn {
  mptl_dnn_device device;
  mptl_dnn_cache cache;
};

mptl_cuda_version mptl_cuda_dnn_version(void) { return mptl_cuda_version_of(cudnnGetVersion()); }
int mptl_cuda_dnn_capability(const mptl_cuda_dnn *dnn) { return dnn->device.traits.capability; }
mptl_dnn_cache *mptl_cuda_dnn_plans(mptl_cuda_dnn *dnn) { return &dnn->cache; }

static mptl_dnn_store *open_store(const mptl_dnn_device *device) {
  char libraries[96];
  snprintf(libraries, sizeof libraries, "cuDNN %s, NVRTC %s", mptl_cuda_dnn_version().text,
           mptl_dnn_compiler_version().text);
  char *text = mptl_dnn_device_text(device);
  mptl_dnn_store *store = text != NULL ? mptl_dnn_store_open(libraries, text) : NULL;
  free(text);
  return store;
}

/* Completes an object after its device was opened with this status. */
static mptl_status finish(mptl_cuda_dnn **dnn, mptl_cuda_dnn *d, mptl_status status,
                          mptl_dnn_judge *judge) {
  if (status != MPTL_OK) {
    mptl_cuda_dnn_destroy(d);
    return status;
  }
  d->cache =
      (mptl_dnn_cache){.device = &d->device, .judge = judge, .store = open_store(&d->device)};
  *dnn = d;
  return MPTL_OK;
}

mptl_status mptl_cuda_dnn_create(mptl_cuda_dnn **dnn, int device, cudaStream_t stream) {
  *dnn = NULL;
  mptl_cuda_dnn *d = calloc(1, sizeof *d);
  if (d == NULL) return mptl_fail(MPTL_ENOMEM, "device cuda:%d: no memory", device);
  return finish(dnn, d, mptl_dnn_device_open(&d->device, device, stream), mptl_dnn_check_plan);
}

mptl_status mptl_cuda_dnn_create_for(mptl_cuda_dnn **dnn, const char *properties) {
  *dnn = NULL;
  mptl_cuda_dnn *d = calloc(1, sizeof *d);
  if (d == NULL) return mptl_fail(MPTL_ENOMEM, "device properties: no memory");
  return finish(dnn, d, mptl_dnn_device_describe(&d->device, properties), NULL);
}

mptl_status mptl_cuda_dnn_create_again(mptl_cuda_dnn **again, const mptl_cuda_dnn *dnn) {
  *again = NULL;
  mptl_cuda_dnn *d = calloc(1, sizeof *d);
  if (d == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  return finish(again, d, mptl_dnn_device_open_again(&d->device, &dnn->device), dnn->cache.judge);
}

void mptl_cuda_dnn_destroy(mptl_cuda_dnn *dnn) {
  if (dnn == NULL) return;
  mptl_dnn_cache_close(&dnn->cache);
  mptl_dnn_device_close(&dnn->device);
  free(dnn);
}
