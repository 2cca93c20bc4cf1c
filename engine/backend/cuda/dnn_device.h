/* A device for which cuDNN makes plans: a GPU of this machine, or one that is only described. */
#ifndef MPTL_BACKEND_CUDA_DNN_DEVICE_H
#define MPTL_BACKEND_CUDA_DNN_DEVICE_H

#include <cudnn_graph.h>
#include <pthread.h>

#include "backend/cuda/device.h"

typedef struct mptl_dnn_device {
  int number; /* number, handle and stream: of a GPU of this machine */
  cudnnHandle_t handle;
  cudaStream_t stream;
  char *description; /* description and properties: of a described device, whose handle is NULL */
  cudnnBackendDescriptor_t properties;
  mptl_cuda_traits traits;
  bool compiler_works;             /* NVRTC has compiled for the device: dnn_compiler.h */
  pthread_mutex_t own_turn, *turn; /* held while a plan is judged on the device: dnn_search.c */
} mptl_dnn_device;

/* Opens GPU `number`, which becomes the thread's current one. */
mptl_status mptl_dnn_device_open(mptl_dnn_device *device, int number, cudaStream_t stream);

/* Opens a device described in cuDNN's JSON (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION). */
mptl_status mptl_dnn_device_describe(mptl_dnn_device *device, const char *properties);

/* Opens the same device again, for another thread. Both share `turn`, so `other` must be closed
 * later. */
mptl_status mptl_dnn_device_open_again(mptl_dnn_device *device, const mptl_dnn_device *other);

void mptl_dnn_device_close(
    mptl_dnn_device *device); /* also after a failed open, if zeroed before */

/* Everything about the device and its driver on which plans depend, as text or JSON, which the
 * caller frees. NULL: it is not known. */
char *mptl_dnn_device_text(const mptl_dnn_device *device);

#endif
