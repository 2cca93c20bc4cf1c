/* Whether NVRTC, with which cuDNN compiles engines, works. */
#ifndef MPTL_BACKEND_CUDA_DNN_COMPILER_H
#define MPTL_BACKEND_CUDA_DNN_COMPILER_H

#include "backend/cuda/dnn_device.h"

/* "13.0": the version of the NVRTC library that is loaded. */
mptl_cuda_version mptl_dnn_compiler_version(void);

/* MPTL_EBACKEND unless NVRTC compiles for the device. Without this check, cuDNN would report that
 * it has no engine for the device, and a wider type would be used without a message. */
mptl_status mptl_dnn_check_compiler(mptl_dnn_device *device);

#endif
