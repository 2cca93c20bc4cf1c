/* Plug-ins: libraries that bring the devices of a backend. They are opened at run time, so that one build of libmptl runs where what
 * they need (a driver, NVIDIA's libraries) is missing.
 */
#ifndef MPTL_BACKEND_PLUGIN_H
#define MPTL_BACKEND_PLUGIN_H

#include <stdint.h>

#include "backend/backend.h"

/* Changes whenever something of backend.h, or of what it includes, does. */
#define MPTL_PLUGIN_ABI 9

/* What a plug-in exports, under the name mptl_plugin_exported. Devices count from 0. */
typedef struct mptl_plugin {
  uint32_t abi;                       /* MPTL_PLUGIN_ABI, as it was built with */
  uint32_t backend_bytes, call_bytes; /* sizes of mptl_backend and mptl_call there */
  const char *(*libraries)(void);     /* "CUDA 13.0, cuDNN 9.13.0" */

  /* The devices here; MPTL_EUNSUPPORTED with what is missing when there is none. */
  mptl_status (*count)(int *devices);
  mptl_status (*describe)(int number, char *text, size_t size); /* "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.1 GiB" */

  /* Opens a device, below count; any of them, as often as one likes. */
  mptl_status (*open)(mptl_device **device, int number);
} mptl_plugin;

/* Of a plug-in. */
extern MPTL_API const mptl_plugin mptl_plugin_exported;

/* The plug-in for "cuda": libmptl_cuda.so beside libmptl, or the one that the environment variable MPTL_CUDA_PLUGIN names ("none": there is
 * none). It is opened at the first call. MPTL_EUNSUPPORTED with what is missing. */
mptl_status mptl_plugin_cuda(const mptl_plugin **plugin);

#endif
