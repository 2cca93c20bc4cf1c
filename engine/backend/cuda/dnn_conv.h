/* Convolutions by cuDNN: one object for each pass of an operator.
 *
 * Activations are dense NHWC, [n][h][w][c]; weights and their gradients are KRSC, [out][kh][kw][in
 * / groups]. Every result is binary32, summed in binary32, and overwrites the old contents. The
 * caller adds biases. backend/shapes.h defines the operands of each pass.
 *
 * Products are never computed with fewer bits than their types have. An engine of cuDNN is allowed
 * only if it sums in a fixed order, in binary32, multiplies the operands themselves (no Winograd,
 * no FFT, no conversion to fewer bits), and uses TF32 only for operands of this type. cuDNN's notes
 * about an engine are not enough: it must give the right sums on the device (check.h). So the same
 * plan gives the same bits for the same operands.
 *
 * Which of the allowed engines is used depends on their times when the plan is made (dnn_search.c):
 * cuDNN's first, unless a later one is twice as fast. Files (dnn_store.h) keep the choice. Without
 * files, another process may choose another engine if two times are near this limit; then its sums
 * differ in the last bits.
 *
 * One thread at a time may use an mptl_cuda_dnn and its convolutions. A run returns as soon as the
 * work is in the stream, and can be captured into a CUDA graph.
 */
#ifndef MPTL_BACKEND_CUDA_DNN_CONV_H
#define MPTL_BACKEND_CUDA_DNN_CONV_H

#include <stddef.h>

#include "backend/cuda/dnn.h"

/* A pass of a convolution. */
typedef struct mptl_cuda_conv mptl_cuda_conv;

/* workspace_limit: the most bytes of workspace, or MPTL_CUDA_USUAL_WORKSPACE. The shape's bias is
 * ignored. MPTL_EINVAL: a wrong shape, or types that cannot be combined (types.h).
 * MPTL_EUNSUPPORTED: the device has no units for it, or cuDNN no engine within the limit. For the
 * devices of spec/cuda/devices.h, cuDNN 9.19 has:
 *   F32, TF32   everything, within any limit; F32's faster engines need workspace for copies of
 *               input and output. Depthwise convolutions are compiled
 *   BF16        forward, with channel groups but not depthwise; backward without channel groups,
 *               for even numbers of channels. cuDNN compiles these, a second or more for each
 *   8 bits      forward like BF16; backward from compute capability 10.0 on
 * dnn and files (dnn_store.h) keep plans and refusals, so creating the same pass again takes little
 * time, even if it fails. */
mptl_status mptl_cuda_conv_create(mptl_cuda_conv **conv, mptl_cuda_dnn *dnn,
                                  const mptl_conv_shape *shape, mptl_pass pass,
                                  mptl_cuda_type first, mptl_cuda_type second,
                                  size_t workspace_limit);
void mptl_cuda_conv_destroy(mptl_cuda_conv *conv); /* NULL is allowed */

/* Bytes of device memory that a run needs besides operands and result. They keep nothing between
 * runs. */
size_t mptl_cuda_conv_workspace_bytes(const mptl_cuda_conv *conv);

/* All addresses are the device's, 16-byte aligned. workspace may be NULL if 0 bytes are needed. */
mptl_status mptl_cuda_conv_run(mptl_cuda_conv *conv, float *result, const void *first,
                               const void *second, void *workspace);

/* cuDNN's number of the engine: "engine 28". */
const char *mptl_cuda_conv_engine(const mptl_cuda_conv *conv);

#endif
