/* The products of linear operators on an NVIDIA GPU: cuBLASLt, one object for one pass of one operator.
 *
 * Matrices are dense and row-major: x [n][in], y [n][out], weights [out][in]; for an input that is an NHWC value, in = h * w * c and
 * the weights are in that order, [out][h][w][c]. Every result is binary32, summed in binary32, and overwrites what was there. Biases
 * are the caller's. Operands in the order of the calls, as in dnn.h:
 *   MPTL_FORWARD            y = x weights^T       first x, second weights
 *   MPTL_BACKWARD_DATA      dx = dy weights       first dy, second weights
 *   MPTL_BACKWARD_WEIGHTS   dweights = dy^T x     first x, second dy
 *
 * Sums have a fixed order, and F32 multiplies binary32 numbers in binary32. An algorithm is taken only after it gave the right sums on the
 * device (check.h), else the library's next one is tried. Calls are for one thread at a time by mptl_cuda_blas, and
 * return as soon as the work is in its stream. A run can be captured into a CUDA graph.
 */
#ifndef MPTL_BACKEND_CUDA_BLAS_H
#define MPTL_BACKEND_CUDA_BLAS_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "backend/cuda/device.h"

/* cuBLASLt on a device. */
typedef struct mptl_cuda_blas mptl_cuda_blas;

/* Work goes to stream (0: the default one), which outlives the object. It makes the device the thread's current one. MPTL_EUNSUPPORTED:
 * there is no such device, or no driver. */
mptl_status mptl_cuda_blas_create(mptl_cuda_blas **blas, int device, cudaStream_t stream);
void mptl_cuda_blas_destroy(mptl_cuda_blas *blas); /* NULL is allowed; after its operators */

/* Version of the cuBLASLt library that is loaded, "13.1.0". */
const char *mptl_cuda_blas_version(void);

/* One pass of a linear operator. */
typedef struct mptl_cuda_linear mptl_cuda_linear;

/* workspace_limit: bytes that the pass may ask for, or MPTL_CUDA_USUAL_WORKSPACE. MPTL_EINVAL: a wrong shape, or types that do not go
 * together (types.h). MPTL_EUNSUPPORTED: the device or cuBLASLt has nothing for it within the limit; with operands of 8 bits that is usual
 * (mptl_cuda_check_8_bits). The shape's bias is ignored. */
mptl_status mptl_cuda_linear_create(mptl_cuda_linear **linear, mptl_cuda_blas *blas, const mptl_linear_shape *shape,
                                    mptl_pass pass, mptl_cuda_type first, mptl_cuda_type second, size_t workspace_limit);
void mptl_cuda_linear_destroy(mptl_cuda_linear *linear); /* NULL is allowed */

/* Bytes of device memory that a run needs besides operands and result; contents before and after mean nothing. */
size_t mptl_cuda_linear_workspace_bytes(const mptl_cuda_linear *linear);

/* All addresses are the device's, 16-byte aligned, the workspace's 256-byte aligned; it may be NULL when 0 bytes are needed. */
mptl_status mptl_cuda_linear_run(mptl_cuda_linear *linear, float *result, const void *first, const void *second, void *workspace);

/* "linear 128x512x1x1 -> 10, forward, bf16" */
const char *mptl_cuda_linear_describe(const mptl_cuda_linear *linear);

/* Which of cuBLASLt's algorithms it is, and its tile, both numbers of the library: "cuBLASLt algorithm 66, tile 20". */
const char *mptl_cuda_linear_engine(const mptl_cuda_linear *linear);

/* As mptl_cuda_conv_wrong: which algorithm was passed over, the last one, and why; empty where there was none. */
const char *mptl_cuda_linear_wrong(const mptl_cuda_linear *linear);

/* A pass as the library's column-major product, result (m x n) = op(a) op(b), where op(a) is m x k and op(b) is k x n. */
typedef struct mptl_cuda_gemm {
  int m, n, k;
  bool transpose_a, transpose_b;
  int lda, ldb, ldc;
  bool a_is_first; /* else it is the second operand */
} mptl_cuda_gemm;
mptl_cuda_gemm mptl_cuda_linear_gemm(const mptl_linear_shape *shape, mptl_pass pass);

/* MPTL_EUNSUPPORTED unless cuBLASLt has code for operands of 8 bits in such a product, as its documentation (cublasLtMatmul) says: not E5M2
 * by E5M2; rows of 16 bytes, which all dimensions being multiples of 16 give; a transposed first matrix and a second one that is not, but
 * from compute capability 10.0 on, below 12.0. Asked for others, it may also answer that values are invalid. */
mptl_status mptl_cuda_check_8_bits(const mptl_cuda_gemm *gemm, int capability, mptl_cuda_type a, mptl_cuda_type b);

#endif
