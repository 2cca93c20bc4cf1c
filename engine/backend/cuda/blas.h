/* Matrix products of linear operators by cuBLASLt: one object for each pass of an operator.
 *
 * Matrices are dense and row-major: x [n][in], y [n][out], weights [out][in]. For an input that is
 * an NHWC value, in = h * w * c and the weights are in that order, [out][h][w][c]. Every result is
 * binary32, summed in binary32, and overwrites the old contents. The caller adds biases.
 * backend/shapes.h defines the operands of each pass:
 *   forward             y = x weights^T
 *   backward by data    dx = dy weights
 *   backward by weights dweights = dy^T x
 *
 * Sums have a fixed order, and F32 multiplies binary32 numbers in binary32. An algorithm is used
 * only if it gives the right sums on the device (check.h); otherwise the library's next one is
 * tried. One thread at a time may use an mptl_cuda_blas and its operators. A run returns as soon as
 * the work is in the stream, and can be captured into a CUDA graph.
 */
#ifndef MPTL_BACKEND_CUDA_BLAS_H
#define MPTL_BACKEND_CUDA_BLAS_H

#include <cuda_runtime_api.h>
#include <stddef.h>

#include "backend/cuda/device.h"

/* cuBLASLt on a device. */
typedef struct mptl_cuda_blas mptl_cuda_blas;

/* Work goes to stream (0: the default stream), which must exist longer than the object. The device
 * becomes the thread's current one, and must be current in every later call. MPTL_EUNSUPPORTED:
 * there is no such device, or no driver. */
mptl_status mptl_cuda_blas_create(mptl_cuda_blas **blas, int device, cudaStream_t stream);
void mptl_cuda_blas_destroy(mptl_cuda_blas *blas); /* after its operators; NULL is allowed */

/* Version of the cuBLASLt library that is loaded. */
mptl_cuda_version mptl_cuda_blas_version(void);

/* One pass of a linear operator. */
typedef struct mptl_cuda_linear mptl_cuda_linear;

/* workspace_limit: the most bytes of workspace, or MPTL_CUDA_USUAL_WORKSPACE. The shape's bias is
 * ignored. MPTL_EINVAL: a wrong shape, or types that cannot be combined (types.h).
 * MPTL_EUNSUPPORTED: the device has no units for it, or cuBLASLt no algorithm within the limit,
 * which is usual for operands of 8 bits (blas_gemm.h). */
mptl_status mptl_cuda_linear_create(mptl_cuda_linear **linear, mptl_cuda_blas *blas,
                                    const mptl_linear_shape *shape, mptl_pass pass,
                                    mptl_cuda_type first, mptl_cuda_type second,
                                    size_t workspace_limit);
void mptl_cuda_linear_destroy(mptl_cuda_linear *linear); /* NULL is allowed */

/* Bytes of device memory that a run needs besides operands and result. They keep nothing between
 * runs. */
size_t mptl_cuda_linear_workspace_bytes(const mptl_cuda_linear *linear);

/* All addresses are the device's: the workspace is 256-byte aligned, the others 16-byte. workspace
 * may be NULL if 0 bytes are needed. */
mptl_status mptl_cuda_linear_run(mptl_cuda_linear *linear, float *result, const void *first,
                                 const void *second, void *workspace);

/* cuBLASLt's numbers of the algorithm and its tile: "cuBLASLt algorithm 66, tile 20". */
const char *mptl_cuda_linear_engine(const mptl_cuda_linear *linear);

#endif
