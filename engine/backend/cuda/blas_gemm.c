/* Linear operators as column-major products. */
#include "backend/cuda/blas_gemm.h"

/* A row-major matrix is the transpose of a column-major one in the same memory. */
mptl_cuda_gemm mptl_cuda_linear_gemm(const mptl_linear_shape *s, mptl_pass pass) {
  const int in = s->c * s->h * s->w, out = s->out;
  const mptl_cuda_gemm gemms[MPTL_PASSES] = {
      {.m = out,
       .n = s->n,
       .k = in,
       .transpose_a = true,
       .lda = in,
       .ldb = in,
       .ldc = out},                                                     /* y' = weights'' x' */
      {.m = in, .n = s->n, .k = out, .lda = in, .ldb = out, .ldc = in}, /* dx' = weights' dy' */
      {.m = in,
       .n = out,
       .k = s->n,
       .transpose_b = true,
       .lda = in,
       .ldb = out,
       .ldc = in,
       .a_is_first = true}}; /* x' dy'' */
  return gemms[pass];
}

mptl_status mptl_cuda_check_8_bits(const mptl_cuda_gemm *g, int capability, mptl_cuda_type a,
                                   mptl_cuda_type b) {
  enum { ALL_LAYOUTS_FROM = 100, ALL_LAYOUTS_BELOW = 120, MULTIPLE = 16 };
  bool all_layouts = capability >= ALL_LAYOUTS_FROM && capability < ALL_LAYOUTS_BELOW;
  if (a == MPTL_CUDA_E5M2 && b == MPTL_CUDA_E5M2)
    return mptl_fail(MPTL_EUNSUPPORTED, "cuBLASLt has no code for e5m2 by e5m2");
  if (g->m % MULTIPLE != 0 || g->n % MULTIPLE != 0 || g->k % MULTIPLE != 0)
    return mptl_fail(MPTL_EUNSUPPORTED,
                     "cuBLASLt has 8 bits for multiples of %d only, the product is %d x %d x %d",
                     MULTIPLE, g->m, g->n, g->k);
  if (!all_layouts && (!g->transpose_a || g->transpose_b))
    return mptl_fail(MPTL_EUNSUPPORTED,
                     "cuBLASLt has 8 bits for a transposed matrix by one that is not only, on "
                     "compute capability %d.%d",
                     capability / 10, capability % 10);
  return MPTL_OK;
}
