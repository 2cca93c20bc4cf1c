/* Convolution and linear operators on oneDNN (2.6 and 3.x): the passes forward, backward data
 * (gradient of the input) and backward weights (gradients of the parameters).
 *
 * Activations are dense NHWC, [n][h][w][c]. Weights are PyTorch's: [out][in / groups][kh][kw] of a
 * convolution with `groups` channel groups; [out][c][h][w] (PyTorch's [out][c*h*w]) of a linear
 * operator whose input is an NHWC value. Biases are [out]. Every result is binary32, summed in
 * binary32. The operands of a pass are binary32 or bf16 arrays, as its compute type says; weights
 * are given in binary32.
 *
 * An operator holds oneDNN's primitives, no arrays. The caller owns its memory, so that the program
 * can place, share and count it:
 *   packed weights   in oneDNN's own layout, one array for each of the passes forward and backward
 *                    data, made by mptl_dnn_pack after each change of the weights. Packing rounds
 *                    nothing: for a bf16 pass, bf16 must hold the weights exactly
 *   scratch          one area for all operators that run one after the other
 *
 * An operator runs on the number of threads for which it was created; then the same operands give
 * the same bits. One thread at a time uses an operator; different operators with different scratch
 * may be used by different threads at the same time.
 *
 * Without oneDNN (it was not found, or CMake's MPTL_ONEDNN is off), no operator can be created.
 */
#ifndef MPTL_BACKEND_CPU_DNN_H
#define MPTL_BACKEND_CPU_DNN_H

#include <stdbool.h>
#include <stddef.h>

#include "backend/shapes.h"

/* The type that a pass multiplies in. It always adds in binary32. */
typedef enum mptl_compute {
  MPTL_COMPUTE_NONE, /* the pass is not created */
  MPTL_COMPUTE_F32,
  MPTL_COMPUTE_BF16, /* operands are bf16 arrays: products are exact, but subnormal operands,
                        products and sums become zero */
} mptl_compute;

typedef struct mptl_dnn mptl_dnn;

/* Creates an operator with the passes for which compute is not MPTL_COMPUTE_NONE. threads: at least
 * 1. MPTL_EINVAL: a wrong shape; MPTL_EUNSUPPORTED: oneDNN has no implementation for it on this
 * machine (see mptl_dnn_supports); MPTL_ENOMEM; MPTL_EBACKEND. To create the same operator again is
 * fast: oneDNN keeps a cache. */
MPTL_API mptl_status mptl_dnn_conv_create(mptl_dnn **op, int threads, const mptl_conv_shape *shape,
                                          const mptl_compute compute[MPTL_PASSES]);
MPTL_API mptl_status mptl_dnn_linear_create(mptl_dnn **op, int threads,
                                            const mptl_linear_shape *shape,
                                            const mptl_compute compute[MPTL_PASSES]);
MPTL_API void mptl_dnn_destroy(mptl_dnn *op); /* NULL is allowed */

/* Bytes of the packed weights that a pass reads; 0 for MPTL_BACKWARD_WEIGHTS and for passes that
 * were not created. */
MPTL_API size_t mptl_dnn_packed_bytes(const mptl_dnn *op, mptl_pass pass);

/* mptl_dnn_scratch_bytes returns the scratch bytes that the passes need (the most of any pass).
 * mptl_dnn_use_scratch sets the area that they use from now on: 64-byte aligned, at least so large,
 * owned by the caller, NULL if 0 bytes are needed. Nothing in it is kept between calls. */
MPTL_API size_t mptl_dnn_scratch_bytes(const mptl_dnn *op);
MPTL_API void mptl_dnn_use_scratch(mptl_dnn *op, void *scratch);

/* Packs weights for MPTL_FORWARD or MPTL_BACKWARD_DATA; packed is 64-byte aligned. */
MPTL_API mptl_status mptl_dnn_pack(mptl_dnn *op, mptl_pass pass, void *packed,
                                   const float *weights);

/* dst = src * weights + bias; bias is NULL if and only if the shape has none. */
MPTL_API mptl_status mptl_dnn_forward(mptl_dnn *op, float *dst, const void *src, const void *packed,
                                      const float *bias);

/* diff_src = the gradient of the input. */
MPTL_API mptl_status mptl_dnn_backward_data(mptl_dnn *op, float *diff_src, const void *diff_dst,
                                            const void *packed);

/* diff_weights = the gradient of the weights, in the order of the weights; diff_bias is NULL if and
 * only if the shape has none. An infinity in diff_dst may make NaN of any of diff_weights of its
 * output channel, because oneDNN may multiply it by padding. */
MPTL_API mptl_status mptl_dnn_backward_weights(mptl_dnn *op, float *diff_weights, float *diff_bias,
                                               const void *src, const void *diff_dst);

/* The operator in words: "conv2d 128x3x32x32 -> 64x32x32, kernel 3x3, ..." */
MPTL_API const char *mptl_dnn_describe(const mptl_dnn *op);

/* oneDNN's name of the implementation that a pass uses ("jit:avx512_core"); "" for a pass that was
 * not created. Implementations with "ref" in their name are slow, and so is "brgconv_strided" for
 * backward data of a depthwise convolution (oneDNN 3.2 in bf16). */
MPTL_API const char *mptl_dnn_implementation(const mptl_dnn *op, mptl_pass pass);

/* Whether this machine multiplies the type in hardware. */
MPTL_API bool mptl_dnn_supports(mptl_compute compute);

/* Whether bf16 products run on matrix units (AMX). */
MPTL_API bool mptl_dnn_has_amx(void);

/* The version of the loaded oneDNN library, "2.6.3"; "none" in a build without it. */
MPTL_API const char *mptl_dnn_version(void);

#endif
