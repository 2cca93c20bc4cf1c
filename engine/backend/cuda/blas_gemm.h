/* Row-major products as column-major ones, which cuBLASLt computes. */
#ifndef MPTL_BACKEND_CUDA_BLAS_GEMM_H
#define MPTL_BACKEND_CUDA_BLAS_GEMM_H

#include "backend/cuda/types.h"
#include "backend/shapes.h"

/* result (m x n) = op(a) op(b), where op(a) is m x k and op(b) is k x n. */
typedef struct mptl_cuda_gemm {
  int m, n, k;
  bool transpose_a, transpose_b;
  int lda, ldb, ldc;
  bool a_is_first; /* a is the pass's first operand; otherwise the second one */
} mptl_cuda_gemm;

mptl_cuda_gemm mptl_cuda_linear_gemm(const mptl_linear_shape *shape, mptl_pass pass);

/* MPTL_EUNSUPPORTED unless cuBLASLt has code for operands of 8 bits in this product. By its
 * documentation (cublasLtMatmul) it has none for E5M2 by E5M2, and needs rows that are multiples of
 * 16 bytes, for which all dimensions are multiples of 16 here. Outside compute capability 10.0 to
 * 11.x it also needs a transposed first matrix and a second one that is not transposed. For other
 * products cuBLASLt may also report invalid values. */
mptl_status mptl_cuda_check_8_bits(const mptl_cuda_gemm *gemm, int capability, mptl_cuda_type a,
                                   mptl_cuda_type b);

#endif
