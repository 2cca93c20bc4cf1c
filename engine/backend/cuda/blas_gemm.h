/* How a row-major product becomes cuBLASLt's column-major one. */
#ifndef MPTL_BACKEND_CUDA_BLAS_GEMM_H
#define MPTL_BACKEND_CUDA_BLAS_GEMM_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* result (m x n) = op(a) op(b), where op(a) is m x k and op(b) is k x n. */
typedef struct mptl_cuda_gemm {
  int m, n, k;
  bool transpose_a, transpose_b;
  int lda, ldb, ldc;
  bool a_is_first; /* a is the pass's first operand; else it is the second one */
} mptl_cuda_gemm;
mptl_cuda_gemm mptl_cuda_linear_gemm(const mptl_linear_shape *shape, mptl_pass pass);

/* MPTL_EUNSUPPORTED unless cuBLASLt has code for operands of 8 bits in such a product. Its documentation
 * (cublasLtMatmul) excludes E5M2 by E5M2; it wants rows of 16 bytes, which dimensions that are multiples of
 * 16 give; and, except from compute capability 10.0 on and below 12.0, a transposed first matrix and a
 * second one that is not transposed. For other products it may also answer that values are invalid. */
mptl_status mptl_cuda_check_8_bits(const mptl_cuda_gemm *gemm, int capability, mptl_cuda_type a, mptl_cuda_type b);

#endif
