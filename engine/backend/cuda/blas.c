/* Linear operators on cuBLASLt: descriptors and an algorithm are chosen and checked once, then run
 * many times. */
#include "backend/cuda/blas.h"

#include <cublasLt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/blas_gemm.h"
#include "backend/cuda/check.h"
#include "backend/cuda/inspect.h"

struct mptl_cuda_blas {
  cublasLtHandle_t handle;
  cudaStream_t stream;
  mptl_cuda_traits traits;
};

struct mptl_cuda_linear {
  char name[sizeof(mptl_shape_name) + 64];
  const mptl_cuda_blas *blas;
  mptl_cuda_gemm gemm;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t a, b, c;
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace_bytes;
  char engine[48];
  char wrong[224]; /* the last algorithm skipped because of wrong sums, and what was wrong */
};

/* ---- The library ---- */

mptl_cuda_version mptl_cuda_blas_version(void) {
  return mptl_cuda_version_of(cublasLtGetVersion());
}

static mptl_status blas_status(cublasStatus_t status, const char *what) {
  if (status == CUBLAS_STATUS_SUCCESS) return MPTL_OK;
  mptl_status code = status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_ARCH_MISMATCH
                         ? MPTL_EUNSUPPORTED
                     : status == CUBLAS_STATUS_ALLOC_FAILED ? MPTL_ENOMEM
                                                            : MPTL_EBACKEND;
  return mptl_fail(code, "%s: cuBLASLt says %s", what, cublasLtGetStatusName(status));
}

mptl_status mptl_cuda_blas_create(mptl_cuda_blas **blas, int device, cudaStream_t stream) {
  *blas = NULL;
  mptl_cuda_traits traits;
  MPTL_TRY(mptl_cuda_use_device(device, &traits));
  mptl_cuda_blas *b = calloc(1, sizeof *b);
  if (b == NULL) return mptl_fail(MPTL_ENOMEM, "device cuda:%d: no memory", device);
  b->stream = stream;
  b->traits = traits;
  mptl_status status = blas_status(cublasLtCreate(&b->handle), "cuBLASLt");
  if (status == MPTL_OK)
    *blas = b;
  else
    mptl_cuda_blas_destroy(b);
  return status == MPTL_OK ? MPTL_OK : mptl_fail_in(status, "device cuda:%d", device);
}

void mptl_cuda_blas_destroy(mptl_cuda_blas *blas) {
  if (blas == NULL) return;
  if (blas->handle != NULL) cublasLtDestroy(blas->handle);
  free(blas);
}

/* ---- Creating ---- */

static cudaDataType data_type(mptl_cuda_type type) {
  static const cudaDataType types[MPTL_CUDA_TYPES] = {CUDA_R_32F, CUDA_R_32F, CUDA_R_16BF,
                                                      CUDA_R_8F_E4M3, CUDA_R_8F_E5M2};
  return types[type];
}

static cublasStatus_t create_product(mptl_cuda_linear *l, mptl_cuda_type a, mptl_cuda_type b) {
  const mptl_cuda_gemm *g = &l->gemm;
  const cublasOperation_t op_a = g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                          op_b = g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasComputeType_t compute = a == MPTL_CUDA_F32    ? CUBLAS_COMPUTE_32F_PEDANTIC
                                : a == MPTL_CUDA_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                      : CUBLAS_COMPUTE_32F;
  cublasStatus_t status = cublasLtMatmulDescCreate(&l->product, compute, CUDA_R_32F);
  if (status == CUBLAS_STATUS_SUCCESS)
    status =
        cublasLtMatmulDescSetAttribute(l->product, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a);
  if (status == CUBLAS_STATUS_SUCCESS)
    status =
        cublasLtMatmulDescSetAttribute(l->product, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b);
  if (status == CUBLAS_STATUS_SUCCESS)
    status =
        cublasLtMatrixLayoutCreate(&l->a, data_type(a), (uint64_t)(g->transpose_a ? g->k : g->m),
                                   (uint64_t)(g->transpose_a ? g->m : g->k), g->lda);
  if (status == CUBLAS_STATUS_SUCCESS)
    status =
        cublasLtMatrixLayoutCreate(&l->b, data_type(b), (uint64_t)(g->transpose_b ? g->n : g->k),
                                   (uint64_t)(g->transpose_b ? g->k : g->n), g->ldb);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = cublasLtMatrixLayoutCreate(&l->c, CUDA_R_32F, (uint64_t)g->m, (uint64_t)g->n, g->ldc);
  return status;
}

/* Sets the conditions that an algorithm must meet. */
static cublasStatus_t set_preference(cublasLtMatmulPreference_t p, size_t workspace_limit) {
  const uint64_t bytes = workspace_limit;
  const uint32_t alignment = 16;
  /* Partial sums are added in binary32, outside the result. */
  const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  cublasStatus_t status = cublasLtMatmulPreferenceSetAttribute(
      p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                  &sums, sizeof sums);
  for (size_t i = 0; i < sizeof alignments / sizeof *alignments && status == CUBLAS_STATUS_SUCCESS;
       i++)
    status = cublasLtMatmulPreferenceSetAttribute(p, alignments[i], &alignment, sizeof alignment);
  return status;
}

static void name_engine(mptl_cuda_linear *l) {
  int id = -1, tile = -1;
  size_t written;
  cublasLtMatmulAlgoConfigGetAttribute(&l->algorithm, CUBLASLT_ALGO_CONFIG_ID, &id, sizeof id,
                                       &written);
  cublasLtMatmulAlgoConfigGetAttribute(&l->algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID, &tile,
                                       sizeof tile, &written);
  snprintf(l->engine, sizeof l->engine, "cuBLASLt algorithm %d, tile %d", id, tile);
}

/* Lists up to *n algorithms within the limit, the library's best one first, and sets *n to their
 * number. */
static mptl_status list_algorithms(cublasLtMatmulHeuristicResult_t *list, int *n,
                                   const mptl_cuda_linear *l, bool of_8_bits,
                                   size_t workspace_limit) {
  cublasLtMatmulPreference_t preference = NULL;
  int most = *n;
  cublasStatus_t status = cublasLtMatmulPreferenceCreate(&preference);
  if (status == CUBLAS_STATUS_SUCCESS) status = set_preference(preference, workspace_limit);
  if (status == CUBLAS_STATUS_SUCCESS)
    status = cublasLtMatmulAlgoGetHeuristic(l->blas->handle, l->product, l->a, l->b, l->c, l->c,
                                            preference, most, list, n);
  /* For operands of 8 bits this status also means that there is no code. */
  if (status == CUBLAS_STATUS_INVALID_VALUE && of_8_bits) status = CUBLAS_STATUS_NOT_SUPPORTED;
  if (preference != NULL) cublasLtMatmulPreferenceDestroy(preference);
  if (status == CUBLAS_STATUS_SUCCESS && *n > 0) status = list[0].state;
  return blas_status(status, "choosing an algorithm");
}

static mptl_status run_checked(void *context, float *result, const void *first, const void *second,
                               void *workspace) {
  return mptl_cuda_linear_run(context, result, first, second, workspace);
}

/* Checks whether the algorithm gives the right sums on the device. */
static mptl_status check(bool *right, mptl_cuda_linear *l, const mptl_linear_shape *s,
                         mptl_pass pass, mptl_cuda_type first, mptl_cuda_type second) {
  const mptl_conv_shape shape = mptl_linear_as_conv(s);
  const mptl_cuda_checked checked = {.shape = &shape,
                                     .pass = pass,
                                     .first = first,
                                     .second = second,
                                     .capability = l->blas->traits.capability,
                                     .workspace_bytes = l->workspace_bytes,
                                     .stream = l->blas->stream,
                                     .run = run_checked,
                                     .context = l};
  mptl_cuda_finding finding;
  MPTL_TRY(mptl_cuda_check(&finding, &checked));
  if (!finding.right) snprintf(l->wrong, sizeof l->wrong, "%s: %s", l->engine, finding.wrong);
  *right = finding.right;
  return MPTL_OK;
}

/* Takes the first of the library's algorithms that gives the right sums. */
static mptl_status choose(mptl_cuda_linear *l, const mptl_linear_shape *shape, mptl_pass pass,
                          mptl_cuda_type first, mptl_cuda_type second, size_t workspace_limit) {
  cublasLtMatmulHeuristicResult_t list[8];
  int n = sizeof list / sizeof *list, wrong = 0;
  MPTL_TRY(list_algorithms(list, &n, l, mptl_cuda_type_size(first) == 1, workspace_limit));
  for (int i = 0; i < n; i++) {
    bool right = false;
    if (list[i].state != CUBLAS_STATUS_SUCCESS) continue;
    l->algorithm = list[i].algo;
    l->workspace_bytes = list[i].workspaceSize;
    name_engine(l);
    MPTL_TRY(check(&right, l, shape, pass, first, second));
    if (right) return MPTL_OK;
    wrong++;
  }
  if (wrong == 0)
    return mptl_fail(MPTL_EUNSUPPORTED, "cuBLASLt has no algorithm within %zu bytes of workspace",
                     workspace_limit);
  return mptl_fail(
      MPTL_EUNSUPPORTED,
      "of cuBLASLt's algorithms within %zu bytes of workspace, the first %d give wrong sums; %s",
      workspace_limit, wrong, l->wrong);
}

static mptl_status create(mptl_cuda_linear *l, const mptl_linear_shape *shape, mptl_pass pass,
                          mptl_cuda_type first, mptl_cuda_type second, size_t workspace_limit) {
  int capability = l->blas->traits.capability;
  mptl_cuda_type a = l->gemm.a_is_first ? first : second, b = l->gemm.a_is_first ? second : first;
  MPTL_TRY(mptl_cuda_check_types(capability, first, second));
  if (mptl_cuda_type_size(first) == 1) MPTL_TRY(mptl_cuda_check_8_bits(&l->gemm, capability, a, b));
  MPTL_TRY(blas_status(create_product(l, a, b), "describing the product"));
  return choose(l, shape, pass, first, second, workspace_limit);
}

mptl_status mptl_cuda_linear_create(mptl_cuda_linear **linear, mptl_cuda_blas *blas,
                                    const mptl_linear_shape *shape, mptl_pass pass,
                                    mptl_cuda_type first, mptl_cuda_type second,
                                    size_t workspace_limit) {
  *linear = NULL;
  MPTL_TRY(mptl_linear_check(shape));
  mptl_cuda_linear *l = calloc(1, sizeof *l);
  if (l == NULL) return mptl_fail(MPTL_ENOMEM, "%s: no memory", mptl_linear_name(shape).text);
  l->blas = blas;
  l->gemm = mptl_cuda_linear_gemm(shape, pass);
  mptl_cuda_product_name(l->name, sizeof l->name, mptl_linear_name(shape).text, pass, first,
                         second);
  const mptl_conv_shape conv = mptl_linear_as_conv(shape);
  mptl_status status = create(l, shape, pass, first, second,
                              mptl_cuda_workspace_limit(&conv, &blas->traits, workspace_limit));
  if (status == MPTL_OK)
    *linear = l;
  else
    status = mptl_fail_in(status, "%s", l->name), mptl_cuda_linear_destroy(l);
  return status;
}

void mptl_cuda_linear_destroy(mptl_cuda_linear *linear) {
  if (linear == NULL) return;
  if (linear->product != NULL) cublasLtMatmulDescDestroy(linear->product);
  if (linear->a != NULL) cublasLtMatrixLayoutDestroy(linear->a);
  if (linear->b != NULL) cublasLtMatrixLayoutDestroy(linear->b);
  if (linear->c != NULL) cublasLtMatrixLayoutDestroy(linear->c);
  free(linear);
}

/* ---- Running ---- */

size_t mptl_cuda_linear_workspace_bytes(const mptl_cuda_linear *linear) {
  return linear->workspace_bytes;
}
const char *mptl_cuda_linear_describe(const mptl_cuda_linear *linear) { return linear->name; }
const char *mptl_cuda_linear_engine(const mptl_cuda_linear *linear) { return linear->engine; }
const char *mptl_cuda_linear_wrong(const mptl_cuda_linear *linear) { return linear->wrong; }

mptl_status mptl_cuda_linear_run(mptl_cuda_linear *l, float *result, const void *first,
                                 const void *second, void *workspace) {
  const float one = 1, zero = 0;
  bool in_order = l->gemm.a_is_first;
  if (workspace == NULL && l->workspace_bytes > 0)
    return mptl_fail(MPTL_EINVAL, "%s: no workspace given, %zu bytes are needed", l->name,
                     l->workspace_bytes);
  return blas_status(
      cublasLtMatmul(l->blas->handle, l->product, &one, in_order ? first : second, l->a,
                     in_order ? second : first, l->b, &zero, result, l->c, result, l->c,
                     &l->algorithm, workspace, l->workspace_bytes, l->blas->stream),
      l->name);
}
