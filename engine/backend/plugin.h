/* Plug-ins: libraries with a backend, opened at run time. So one build of libmptl also runs on
 * machines without NVIDIA's driver and libraries.
 */
#ifndef MPTL_BACKEND_PLUGIN_H
#define MPTL_BACKEND_PLUGIN_H

#include <stdint.h>

#include "backend/backend.h"

/* Increase it with any change of backend.h or of a header that it includes. */
#define MPTL_PLUGIN_ABI 11

/* What a plug-in exports. Device numbers count from 0. */
typedef struct mptl_plugin {
  uint32_t abi;                       /* its MPTL_PLUGIN_ABI */
  uint32_t backend_bytes, call_bytes; /* sizes of its mptl_backend and mptl_call */
  const char *(*libraries)(void);     /* "CUDA 13.0, cuDNN 9.13.0" */

  /* Counts the machine's devices. Fails with MPTL_EUNSUPPORTED and what is missing if there is
   * none. */
  mptl_status (*count)(int *devices);

  /* Writes "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.1 GiB". */
  mptl_status (*describe)(int number, char *text, size_t size);

  /* Opens a device: 0 to count - 1. A device can be opened several times. */
  mptl_status (*open)(mptl_device **device, int number);
} mptl_plugin;

/* The symbol that a plug-in defines. */
extern MPTL_API const mptl_plugin mptl_plugin_exported;

/* The plug-in for "cuda": the file that the environment variable MPTL_CUDA_PLUGIN names ("none": no
 * plug-in), else libmptl_cuda.so in the folder of libmptl. The first call opens it. Fails with
 * MPTL_EUNSUPPORTED and what is missing. */
mptl_status mptl_plugin_cuda(const mptl_plugin **plugin);

#endif
