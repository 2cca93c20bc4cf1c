/* Convolutions on an NVIDIA GPU through cuDNN: one object for one pass of one operator.
 *
 * Activations are dense NHWC, [n][h][w][c]; weights and their gradients are KRSC,
 * [out][kh][kw][in / groups]. Every result is binary32, summed in binary32, and overwrites the old
 * contents. The caller adds biases. backend/shapes.h says which operands a pass has.
 *
 * Products are never computed with fewer bits than their types say. Only those of cuDNN's engines are
 * taken that sum in a fixed order, in binary32, multiply the operands themselves (no Winograd, no FFT, no
 * conversion to fewer bits), and use TF32 only where it is asked for. What cuDNN says of an engine is not
 * enough: it is taken only after it gave the right sums on the device (check.h). So the same plan gives
 * the same bits for the same operands.
 *
 * Which of the allowed engines is taken depends on how long they take when the plan is made
 * (dnn_search.c): cuDNN's first, unless a later one is twice as fast. Files (dnn_store.h) keep the choice.
 * Without them, another process may take another engine where two are near that border, and then its sums
 * differ in the last bits.
 *
 * Calls are for one thread at a time by mptl_cuda_dnn, and return as soon as the work is in its stream. A
 * run can be captured into a CUDA graph.
 */
#ifndef MPTL_BACKEND_CUDA_DNN_CONV_H
#define MPTL_BACKEND_CUDA_DNN_CONV_H

#include <stddef.h>

#include "backend/cuda/dnn.h"

/* One pass of a convolution. */
typedef struct mptl_cuda_conv mptl_cuda_conv;

/* workspace_limit: bytes that the pass may ask for, or MPTL_CUDA_USUAL_WORKSPACE. The shape's bias is
 * ignored. MPTL_EINVAL: a wrong shape, or types that do not go together (types.h). MPTL_EUNSUPPORTED: the
 * device or cuDNN has nothing for it within the limit. What cuDNN 9.19 has for the devices of
 * spec/cuda/devices.h:
 *   F32, TF32   everything, within any limit; F32's faster engines need room for input and output once
 *               more. Depthwise convolutions are compiled
 *   BF16        forward, with channel groups but not depthwise; backward without channel groups, for even
 *               numbers of channels. cuDNN compiles these, which takes a second or more for each
 *   8 bits      forward like BF16; backward from compute capability 10.0 on
 * The dnn and files (dnn_store.h) keep plans, and also that there is none: creating the same pass again
 * takes little time, and so does failing again. */
mptl_status mptl_cuda_conv_create(mptl_cuda_conv **conv, mptl_cuda_dnn *dnn, const mptl_conv_shape *shape, mptl_pass pass,
                                  mptl_cuda_type first, mptl_cuda_type second, size_t workspace_limit);
void mptl_cuda_conv_destroy(mptl_cuda_conv *conv); /* NULL is allowed */

/* Bytes of device memory that a run needs besides operands and result; nothing is kept there between runs. */
size_t mptl_cuda_conv_workspace_bytes(const mptl_cuda_conv *conv);

/* All addresses are the device's, 16-byte aligned; workspace may be NULL when 0 bytes are needed. */
mptl_status mptl_cuda_conv_run(mptl_cuda_conv *conv, float *result, const void *first, const void *second, void *workspace);

/* Which of cuDNN's engines computes it, "engine 28". */
const char *mptl_cuda_conv_engine(const mptl_cuda_conv *conv);

#endif
