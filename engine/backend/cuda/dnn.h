/* Convolutions on an NVIDIA GPU: cuDNN 9's graph API, one object for one pass of one operator.
 *
 * Activations are dense NHWC, [n][h][w][c]; weights and their gradients are KRSC, [out][kh][kw][in / groups]. Every result is binary32,
 * summed in binary32, and overwrites what was there. Biases are the caller's. The operands of a pass, in the order of the calls, and its
 * result:
 *   MPTL_FORWARD            first x, second weights    result y
 *   MPTL_BACKWARD_DATA      first dy, second weights   result dx
 *   MPTL_BACKWARD_WEIGHTS   first x, second dy         result dweights
 *
 * Products are what their types say, never less: of cuDNN's engines those are taken that sum in a fixed order, in binary32,
 * multiply the operands themselves (no Winograd, no FFT, no conversion to fewer bits), and use TF32 only where it is asked
 * for. cuDNN's word on that is not enough: an engine is taken only after it gave the right sums on the device (check.h), and
 * one that did not is passed over as one that is ruled out. So the same plan gives the same bits for the same operands.
 *
 * Which of the allowed engines it is depends on how long they take when the plan is made (dnn_search.c): cuDNN's first, unless
 * a later one is twice as fast. Its files (dnn_store.h) keep the choice. Without them, another process may take another engine
 * where two are near that border, and its sums differ in the last bits then.
 *
 * Calls are for one thread at a time by mptl_cuda_dnn, and return as soon as the work is in its stream. A run can be captured into a CUDA
 * graph.
 */
#ifndef MPTL_BACKEND_CUDA_DNN_H
#define MPTL_BACKEND_CUDA_DNN_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cuda/device.h"
#include "backend/cuda/wanted.h"

/* cuDNN on a device. */
typedef struct mptl_cuda_dnn mptl_cuda_dnn;

/* For a device of this machine; work goes to stream (0: the default one), which outlives the object. It makes the device the thread's
 * current one. MPTL_EUNSUPPORTED: there is no such device, or no driver. */
mptl_status mptl_cuda_dnn_create(mptl_cuda_dnn **dnn, int device, cudaStream_t stream);

/* For a device that is not there, described in cuDNN's JSON (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION): convolutions can be created
 * and asked about, not run. */
mptl_status mptl_cuda_dnn_create_for(mptl_cuda_dnn **dnn, const char *properties);
void mptl_cuda_dnn_destroy(mptl_cuda_dnn *dnn); /* NULL is allowed; after its convolutions */

/* 10 * major + minor: 80, 90. */
int mptl_cuda_dnn_capability(const mptl_cuda_dnn *dnn);

/* Version of the cuDNN library that is loaded, "9.19.0". */
const char *mptl_cuda_dnn_version(void);

/* One pass of a convolution. */
typedef struct mptl_cuda_conv mptl_cuda_conv;

/* workspace_limit: bytes that the pass may ask for, or MPTL_CUDA_USUAL_WORKSPACE. MPTL_EINVAL: a wrong shape, or types that do not go
 * together (types.h).
 * MPTL_EUNSUPPORTED: the device or cuDNN has nothing for it within the limit. The shape's bias is ignored. What cuDNN 9.19 has, by the
 * devices of spec/cuda/devices.h:
 *   F32, TF32   everything, within any limit; F32's faster engines want room for input and output once more. Depthwise ones are compiled
 *   BF16        forward, groups included but not depthwise; backward without groups, for even numbers of channels.
 *               cuDNN compiles these, which takes a second or more each
 *   8 bits      forward as BF16; backward from compute capability 100 on
 * Plans are kept, in dnn and in files (dnn_store.h), and so is that there is none: creating the same again is cheap, and so is failing
 * again. */
mptl_status mptl_cuda_conv_create(mptl_cuda_conv **conv, mptl_cuda_dnn *dnn, const mptl_conv_shape *shape, mptl_pass pass,
                                  mptl_cuda_type first, mptl_cuda_type second, size_t workspace_limit);
void mptl_cuda_conv_destroy(mptl_cuda_conv *conv); /* NULL is allowed */

/* Makes the plans of a list that take long, because cuDNN compiles them, and are not kept yet, on up to that many threads: creating the passes
 * then finds them, the same as it would have made. What cannot be made is left to it. Returns how many were made. */
size_t mptl_cuda_conv_make_ahead(mptl_cuda_dnn *dnn, const mptl_cuda_wanted *list, size_t n, size_t workspace_limit, int threads);

/* Bytes of device memory that a run needs besides operands and result; contents before and after mean nothing. */
size_t mptl_cuda_conv_workspace_bytes(const mptl_cuda_conv *conv);

/* All addresses are the device's, 16-byte aligned; workspace may be NULL when 0 bytes are needed. */
mptl_status mptl_cuda_conv_run(mptl_cuda_conv *conv, float *result, const void *first, const void *second, void *workspace);

/* "conv2d 128x3x32x32 -> ..., forward, bf16" and which of cuDNN's engines it is, "engine 28". */
const char *mptl_cuda_conv_describe(const mptl_cuda_conv *conv);
const char *mptl_cuda_conv_engine(const mptl_cuda_conv *conv);

/* Which engine was passed over, the last one, because its sums were wrong when this plan was made, and what they were: "engine
 * 2: ...". Empty where there was none, or the plan is from a file. */
const char *mptl_cuda_conv_wrong(const mptl_cuda_conv *conv);

#endif
