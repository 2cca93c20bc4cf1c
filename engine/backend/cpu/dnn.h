/* Convolution and linear operators on oneDNN (2.6 and 3.x): forward, gradient of the input, gradients of the parameters.
 *
 * Activations are dense NHWC, [n][h][w][c]; weights are PyTorch's: [out][in / groups][kh][kw] for a convolution, [out][c][h][w]
 * (PyTorch's [out][c*h*w]) for a linear operator whose input is an NHWC value; biases are [out]. Every result is binary32, summed
 * in binary32. The operands of a pass are binary32 or bf16 arrays, as its compute type says; weights are given in binary32.
 *
 * An operator holds code, no arrays. What it needs at run time is the caller's, so that it can be placed, shared and counted with
 * everything else:
 *   packed weights   oneDNN's own layout of the weights, one per pass: forward and backward data; made by mptl_dnn_pack after
 *                    each change of the weights (the pack rounds nothing: a bf16 pack wants weights that bf16 holds exactly)
 *   scratch          one area for all operators that are run one after the other
 *
 * An operator runs on the number of threads that it was created for; then the same operands give the same bits. It is
 * used by one thread at a time; different operators with different scratch may be used by different threads at once.
 */
#ifndef MPTL_BACKEND_CPU_DNN_H
#define MPTL_BACKEND_CPU_DNN_H

#include <stdbool.h>
#include <stddef.h>

#include "backend/shapes.h"

/* What a pass multiplies; it adds in binary32 in any case. */
typedef enum mptl_compute {
  MPTL_COMPUTE_NONE, /* the pass is not wanted */
  MPTL_COMPUTE_F32,
  MPTL_COMPUTE_BF16, /* operands are bf16 arrays: products are exact, but subnormal operands, products and sums count as zero */
} mptl_compute;

typedef struct mptl_dnn mptl_dnn;

/* compute says, by pass, which passes to create and what they multiply. MPTL_EINVAL: a wrong shape. MPTL_EUNSUPPORTED: oneDNN
 * has no code for it here (see mptl_dnn_supports). Creating the same again is cheap: oneDNN keeps a cache. */
MPTL_API mptl_status mptl_dnn_conv_create(mptl_dnn **op, int threads, const mptl_conv_shape *shape,
                                          const mptl_compute compute[MPTL_PASSES]);
MPTL_API mptl_status mptl_dnn_linear_create(mptl_dnn **op, int threads, const mptl_linear_shape *shape,
                                            const mptl_compute compute[MPTL_PASSES]);
MPTL_API void mptl_dnn_destroy(mptl_dnn *op); /* NULL is allowed */

/* Bytes of the packed weights that a pass reads; 0 for MPTL_BACKWARD_WEIGHTS and for passes that were not created. */
MPTL_API size_t mptl_dnn_packed_bytes(const mptl_dnn *op, mptl_pass pass);

/* Scratch bytes that the operator's passes need (the largest of them), and the area to use from now on: 64-byte aligned, at least
 * as large, owned by the caller; its contents before and after a call mean nothing. May be NULL when 0 bytes are needed. */
MPTL_API size_t mptl_dnn_scratch_bytes(const mptl_dnn *op);
MPTL_API void mptl_dnn_use_scratch(mptl_dnn *op, void *scratch);

/* Packs weights for MPTL_FORWARD or MPTL_BACKWARD_DATA; packed is 64-byte aligned. */
MPTL_API mptl_status mptl_dnn_pack(mptl_dnn *op, mptl_pass pass, void *packed, const float *weights);

/* dst = src * weights + bias; bias is NULL if and only if the shape has none. */
MPTL_API mptl_status mptl_dnn_forward(mptl_dnn *op, float *dst, const void *src, const void *packed, const float *bias);

/* diff_src = the gradient of the input. */
MPTL_API mptl_status mptl_dnn_backward_data(mptl_dnn *op, float *diff_src, const void *diff_dst, const void *packed);

/* diff_weights = the gradient of the weights, in the weights' order; diff_bias is NULL if and only if the shape has none.
 * An infinity in diff_dst may make NaN of more of its output channel's diff_weights than it is part of (padding times it). */
MPTL_API mptl_status mptl_dnn_backward_weights(mptl_dnn *op, float *diff_weights, float *diff_bias, const void *src,
                                               const void *diff_dst);

/* The operator in words: "conv2d 128x3x32x32 -> 64x32x32, kernel 3x3, ..." */
MPTL_API const char *mptl_dnn_describe(const mptl_dnn *op);

/* oneDNN's name of the code that a pass runs ("jit:avx512_core"), "" for a pass that was not created. "ref" in it means slow,
 * and so does "brgconv_strided" in a depthwise convolution's backward data (oneDNN 3.2 in bf16). */
MPTL_API const char *mptl_dnn_implementation(const mptl_dnn *op, mptl_pass pass);

/* Whether this machine multiplies the type in hardware, so that asking for it makes sense. */
MPTL_API bool mptl_dnn_supports(mptl_compute compute);

/* Whether bf16 products run on matrix units (AMX). */
MPTL_API bool mptl_dnn_has_amx(void);

/* Version of the oneDNN library that is loaded, "2.6.3". */
MPTL_API const char *mptl_dnn_version(void);

#endif
