/* Functions of the libraries' products that only specs and benchmarks call. */
#ifndef MPTL_BACKEND_CUDA_INSPECT_H
#define MPTL_BACKEND_CUDA_INSPECT_H

#include "backend/cuda/blas.h"
#include "backend/cuda/dnn.h"
#include "backend/cuda/dnn_conv.h"

/* Creates cuDNN for a device that this machine does not have, from cuDNN's description in JSON
 * (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION). Convolutions can be created and inspected, but not
 * run. */
mptl_status mptl_cuda_dnn_create_for(mptl_cuda_dnn **dnn, const char *properties);

/* 10 * major + minor: 80, 90. */
int mptl_cuda_dnn_capability(const mptl_cuda_dnn *dnn);

/* "conv2d 128x3x32x32 -> ..., forward, bf16"; "linear 128x512x1x1 -> 10, forward, bf16" */
const char *mptl_cuda_conv_describe(const mptl_cuda_conv *conv);
const char *mptl_cuda_linear_describe(const mptl_cuda_linear *linear);

/* The last engine that was skipped because of wrong sums when this plan was made, and what was
 * wrong: "engine 2: ...". Empty: no engine was skipped, or the plan is from a file. */
const char *mptl_cuda_conv_wrong(const mptl_cuda_conv *conv);
const char *mptl_cuda_linear_wrong(const mptl_cuda_linear *linear);

#endif
